package builder

import (
	"debug/buildinfo"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/gomod"
)

// withModules adds to a file of the lock what its programs say that they are
// built from. Each module stands as "path version h1:sum", as go.sum has it
// (https://go.dev/ref/mod#go-sum-files), so that whoever reads two locks sees
// which dependency moved. The digest of the file is what a build holds it to.
func withModules(f LockedFile, r gomod.Recipe, programs ...cache.Blob) (LockedFile, error) {
	for _, b := range programs {
		info, err := buildinfo.ReadFile(b.Path)
		if err != nil {
			return LockedFile{}, fmt.Errorf("reading what %s is built from: %w", f.Name, err)
		}
		f.Go = info.GoVersion
		for _, m := range append(info.Deps, &info.Main) {
			if line, ok := moduleLine(m, r); ok {
				f.Modules = append(f.Modules, line)
			}
		}
	}
	slices.Sort(f.Modules)
	f.Modules = slices.Compact(f.Modules)
	return f, nil
}

// moduleLine renders a module. What takes its place is what is in the program;
// the recipe's own may be replaced by a copy, which has no sum. The private main
// module of a build is none that can be fetched.
func moduleLine(m *debug.Module, r gomod.Recipe) (string, bool) {
	if m.Replace != nil && m.Replace.Version != "" {
		m = m.Replace
	}
	sum := m.Sum
	if m.Path == r.Module && sum == "" {
		sum = r.Sum
	}
	return strings.TrimSpace(m.Path + " " + m.Version + " " + sum), m.Version != "" && m.Version != "(devel)"
}

// differentBuild says why a program that is built again is another one, as far
// as the two say what they are built from; "" if they do not.
func differentBuild(locked, now LockedFile) string {
	if locked.Go != "" && now.Go != "" && locked.Go != now.Go {
		return fmt.Sprintf("it was built with %s, and the go command at hand is %s", locked.Go, now.Go)
	}
	for _, m := range now.Modules {
		if len(locked.Modules) > 0 && !slices.Contains(locked.Modules, m) {
			return "it is built from " + m + " now"
		}
	}
	return ""
}
