package derive

import (
	"context"
	"fmt"

	"github.com/kscratch/kscratch/layers"
)

var stepUsrmerge = Step{
	Name: "usrmerge",
	Doc:  "the links /bin, /sbin, /lib and /lib64 into /usr; a real directory there is an error (base-files preinst)",
	Run:  usrmerge,
}

func usrmerge(_ context.Context, in Input) (Result, error) {
	var files []layers.File
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		f, ok := in.Tree.Lookup(d)
		if !ok && in.has("usr/"+d) {
			files = append(files, link(d, "usr/"+d))
		}
		if ok && f.Link != "usr/"+d && f.Link != "/usr/"+d {
			return Result{}, fmt.Errorf("/%s of %s: want a link to usr/%s, is %v", d, f.Owner, d, f.Mode)
		}
	}
	return Result{Files: files}, nil
}
