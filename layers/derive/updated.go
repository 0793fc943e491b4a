package derive

import (
	"context"
	"fmt"

	"github.com/kscratch/kscratch/layers"
)

var stepUpdated = Step{
	Name: "updated",
	Doc:  "/etc/.updated, which tells systemd that /etc was made for this /usr, so that the first boot does not run sysusers, hwdb and ldconfig again",
	Run:  updated,
}

// updated writes what systemd-update-done would. ConditionNeedsUpdate=/etc
// compares the modification time of /usr with that of this file, which
// therefore must not be older. Nor may it become so in the image: whoever
// writes the tree must keep, or clamp, both times in the same way.
func updated(_ context.Context, in Input) (Result, error) {
	usr, ok := in.Tree.Lookup("usr")
	if !ok || !in.has("usr/lib/systemd/systemd-update-done") {
		return Result{}, nil
	}
	stamp := file("etc/.updated", 0o644, fmt.Sprintf(
		"# The state of /usr that /etc was made for, see systemd-update-done(8).\nTIMESTAMP_NSEC=%d\n", max(in.Time.Unix(), 0)*1e9))
	if usr.ModTime.After(in.Time) {
		stamp.ModTime = usr.ModTime
	}
	return Result{Files: []layers.File{stamp}}, nil
}
