package gomod

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"

	"github.com/kscratch/kscratch/layers/cache"
)

// files are the contents of a module by path.
type files map[string]string

// published are the modules that the proxy of these tests serves. The programs
// import nothing, so that building them is quick.
var published = map[module.Version]files{
	{Path: "example.com/app", Version: "v1.2.3"}: {
		"go.mod": `module example.com/app
go 1.21
require example.com/dep v0.0.0
replace example.com/dep => ./staging/dep
`,
		"cmd/hello/main.go":  "package main\nimport \"example.com/dep\"\nvar who = \"nobody\"\nfunc main() { println(dep.Greeting, who) }\n",
		"cmd/hello/extra.go": "//go:build extra\npackage main\nfunc init() { println(\"extra\") }\n",
		"cmd/bye/v2/main.go": "package main\nfunc main() { println(\"bye\") }\n",
		"cmd/plug/main.go":   "package main\nimport (\n\t_ \"example.com/app/plugin\"\n)\nfunc main() { println(\"plug\") }\n",
		"plugin/plugin.go":   "package plugin\nfunc init() { println(\"plugin\") }\n",
		"suite/suite.go":     "package suite\n",
		"suite/main_test.go": "package suite\nimport (\"os\"; \"testing\")\nfunc TestMain(*testing.M) { println(\"suite\"); os.Exit(0) }\n",
	},
	{Path: "example.com/dep", Version: "v0.2.3"}: {
		"go.mod": "module example.com/dep\ngo 1.21\n",
		"dep.go": "package dep\nconst Greeting = \"hello\"\n",
	},
	{Path: "example.com/broken", Version: "v1.0.0"}: {
		"go.mod":  "module example.com/broken\ngo 1.21\n",
		"main.go": "package main\nfunc main() { undefinedName() }\n",
	},
	{Path: "example.com/future", Version: "v1.0.0"}: {
		"go.mod":  "module example.com/future\ngo 1.999\n",
		"main.go": "package main\nfunc main() {}\n",
	},
}

func app() Recipe {
	return Recipe{
		Module: "example.com/app", Version: "v1.2.3",
		Packages: []Package{{Path: "example.com/app/cmd/hello", Name: "hello"}, {Path: "example.com/app/cmd/bye/v2", Name: "goodbye"}},
		Pins:     []Pin{{"example.com/", "v0.2.3"}},
		Ldflags:  "-s -w -buildid= -X main.who=world",
	}
}

func single(path string) Recipe {
	return Recipe{Module: path, Version: "v1.0.0", Packages: []Package{{Path: path, Name: "program"}}}
}

// proxy lays the published modules out as https://go.dev/ref/mod#goproxy-protocol
// wants and returns the directory.
func proxy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for m, fs := range published {
		at := filepath.Join(dir, m.Path, "@v")
		must(t, os.MkdirAll(at, 0o755))
		must(t, os.WriteFile(filepath.Join(at, m.Version+".mod"), []byte(fs["go.mod"]), 0o644))
		must(t, os.WriteFile(filepath.Join(at, m.Version+".info"), []byte(fmt.Sprintf("{\"Version\":%q}", m.Version)), 0o644))
		f, err := os.Create(filepath.Join(at, m.Version+".zip"))
		must(t, err)
		z := zip.NewWriter(f)
		for name, text := range fs {
			w, err := z.Create(m.String() + "/" + name)
			must(t, err)
			_, err = w.Write([]byte(text))
			must(t, err)
		}
		must(t, errors.Join(z.Close(), f.Close()))
	}
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// modcache returns a module cache; go makes its directories read-only.
func modcache(t *testing.T) string {
	dir := t.TempDir()
	t.Cleanup(func() {
		filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				return os.Chmod(p, 0o755)
			}
			return nil
		})
	})
	return dir
}

// options use the go command that runs the tests, offline.
func options(t *testing.T) Options {
	t.Helper()
	path, err := exec.LookPath("go")
	must(t, err)
	env := append(os.Environ(), "GOPROXY=file://"+proxy(t), "GOSUMDB=off", "GONOPROXY=none", "GOPRIVATE=", "GOMODCACHE="+modcache(t),
		"GOFLAGS=-tags=extra", "GOOS=plan9", "GOEXPERIMENT=nosuch") // must not matter
	return Options{Go: path, Env: env}
}

func open(t *testing.T) *cache.Store {
	t.Helper()
	s, err := cache.Open(t.TempDir())
	must(t, err)
	return s
}

func TestBuild(t *testing.T) {
	ctx, store, o := t.Context(), open(t), options(t)
	blobs, err := Build(ctx, store, app(), o)
	must(t, err)
	for name, want := range map[string]string{"hello": "hello world\n", "goodbye": "bye\n"} {
		b, ok := blobs[name]
		if !ok || b.Hit {
			t.Fatalf("%s: built %v, from the store %v", name, ok, b.Hit)
		}
		if out := say(t, b); out != want {
			t.Errorf("%s says %q, want %q", name, out, want)
		}
	}

	// The second time the module is not even looked at when its sum is known.
	sum := moduleSum(t, store, o)
	r := app()
	r.Sum = sum
	o.Env = append(o.Env, "GOPROXY=off", "GOMODCACHE="+modcache(t))
	again, err := Build(ctx, store, r, o)
	must(t, err)
	for name, b := range again {
		if !b.Hit || b.Digest != blobs[name].Digest {
			t.Errorf("%s: again %+v, first %+v", name, b, blobs[name])
		}
	}
	if left, _ := filepath.Glob(filepath.Join(store.Dir(), "tmp", "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// What comes out of the odder kinds of recipe.
func TestBuildKinds(t *testing.T) {
	store, o := open(t), options(t)
	for _, tt := range []struct {
		name   string
		change func(*Recipe)
		want   string // what the program says, or the error
	}{
		{"plain", func(*Recipe) {}, "plugin\nplug\n"},
		{"without a plugin", func(r *Recipe) { r.Unimport = []string{"example.com/app/plugin"} }, "plug\n"},
		{"without what it does not have", func(r *Recipe) { r.Unimport = []string{"example.com/app/other"} }, "leaving out example.com/app/other"},
		{"test binary", func(r *Recipe) { r.Packages[0] = Package{"example.com/app/suite", "plug", true} }, "suite\n"},
	} {
		r := app()
		r.Packages = []Package{{Path: "example.com/app/cmd/plug", Name: "plug"}}
		tt.change(&r)
		var got string
		blobs, err := Build(t.Context(), store, r, o)
		if err != nil {
			got = err.Error()
		} else {
			got = say(t, blobs["plug"])
		}
		if !strings.Contains(got, tt.want) || err == nil && got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestSource(t *testing.T) {
	store, o := open(t), options(t)
	dir, err := Source(t.Context(), store, app(), o)
	must(t, err)
	got, err := os.ReadFile(filepath.Join(dir, "suite", "suite.go"))
	if err != nil || string(got) != "package suite\n" {
		t.Errorf("got %q, %v", got, err)
	}
	wrong := app()
	wrong.Sum = "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	if dir, err := Source(t.Context(), store, wrong, o); err == nil {
		t.Errorf("with another sum: got %s", dir)
	}
}

// say runs a program and returns all that it writes.
func say(t *testing.T, b cache.Blob, args ...string) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "program")
	data, err := os.ReadFile(b.Path)
	must(t, err)
	must(t, os.WriteFile(exe, data, 0o755))
	out, err := exec.CommandContext(t.Context(), exe, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	return string(out)
}

// moduleSum is the sum of example.com/app as go mod download tells it.
func moduleSum(t *testing.T, store *cache.Store, o Options) string {
	t.Helper()
	work := t.TempDir()
	must(t, os.Mkdir(filepath.Join(work, "tmp"), 0o755))
	tc, err := probe(t.Context(), store, "test", work, o)
	must(t, err)
	b := &build{store: store, r: app(), o: o, work: work, tc: tc}
	must(t, b.fetch(t.Context()))
	return b.src.Sum
}

// The same bytes come out whoever builds, wherever the caches are.
func TestBuildIsReproducible(t *testing.T) {
	gocache, err := exec.Command("go", "env", "GOCACHE").Output()
	must(t, err)
	if a, b := digests(t, strings.TrimSpace(string(gocache))), digests(t, strings.TrimSpace(string(gocache))); a != b {
		t.Errorf("two builds differ:\n%s\n%s", a, b)
	}
}

// digests builds as a user with a new home, a new store and new module caches.
func digests(t *testing.T, gocache string) string {
	t.Helper()
	o, home := options(t), t.TempDir()
	o.Env = append(o.Env, "HOME="+home, "USER="+filepath.Base(home), "GOPATH="+modcache(t), "GOCACHE="+gocache)
	blobs, err := Build(t.Context(), open(t), app(), o)
	must(t, err)
	return string(blobs["hello"].Digest + "\n" + blobs["goodbye"].Digest)
}

func TestBuildAtOnce(t *testing.T) {
	store, o := open(t), options(t)
	var wg sync.WaitGroup
	var got [3]map[string]cache.Blob
	var errs [3]error
	for i := range got {
		wg.Go(func() { got[i], errs[i] = Build(t.Context(), store, app(), o) })
	}
	wg.Wait()
	must(t, errors.Join(errs[:]...))
	built := 0
	for _, blobs := range got {
		if len(blobs) != 2 {
			t.Fatalf("got %v", blobs)
		}
		if !blobs["goodbye"].Hit {
			built++ // the program that sorts first is compiled under its lock
		}
	}
	if built != 1 {
		t.Errorf("built %d times, want once", built)
	}
}

// Which inputs make another program.
func TestKey(t *testing.T) {
	base := func() *build {
		return &build{r: app(), tc: toolchain{version: "go1.26.8"}}
	}
	want := base().key(app().Packages[0])
	for name, change := range map[string]func(*build){
		"version":   func(b *build) { b.r.Version = "v1.2.4" },
		"sum":       func(b *build) { b.r.Sum = "h1:x" },
		"ldflags":   func(b *build) { b.r.Ldflags += " " },
		"tags":      func(b *build) { b.r.Tags = []string{"extra"} },
		"pins":      func(b *build) { b.r.Pins[0].Version = "v0.2.4" },
		"toolchain": func(b *build) { b.tc.version = "go1.26.9" },
		"arch":      func(b *build) { b.o.Arch = "arm64" },
		"import":    func(b *build) { b.r.Unimport = []string{"example.com/app/plugin"} },
	} {
		b := base()
		if change(b); b.key(app().Packages[0]) == want {
			t.Errorf("another %s has the same key", name)
		}
	}
	test := app().Packages[0]
	test.Test = true
	if base().key(test) == want {
		t.Error("a test binary has the key of the program")
	}
	other := base()
	other.r.Packages = other.r.Packages[:1]
	if other.key(app().Packages[0]) != want {
		t.Error("the key of a program depends on the other programs")
	}
}

func TestBuildErrors(t *testing.T) {
	o := options(t)
	unpinned := app()
	unpinned.Pins = nil
	mismatch := app()
	mismatch.Sum = "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	missing := app()
	missing.Packages = []Package{{Path: "example.com/app/cmd/absent", Name: "absent"}}
	twice := app()
	twice.Packages[1].Name = "hello"
	for _, tt := range []struct {
		name string
		r    Recipe
		o    func(*Options)
		want string
	}{
		{"no go command", app(), func(o *Options) { o.Go = "" }, "no go command found: install Go"},
		{"go command that is gone", app(), func(o *Options) { o.Go = "/nonexistent/go" }, "no go command found: install Go"},
		{"no go command at all", app(), func(o *Options) { o.Go = "/bin/true" }, "asking /bin/true for its settings"},
		{"old go", single("example.com/future"), nil, "requires go >= 1.999"},
		{"unknown module", single("example.com/nowhere"), nil, "downloading the module"},
		{"program does not compile", single("example.com/broken"), nil, "undefined: undefinedName"},
		{"directory without a pin", unpinned, nil, "replaces example.com/dep by the directory ./staging/dep"},
		{"other content than pinned", mismatch, nil, "want h1:AAAA"},
		{"no such package", missing, nil, "cmd/absent"},
		{"two programs of one name", twice, nil, `program name "hello" is not a plain file name or is there twice`},
		{"no version", Recipe{Module: "example.com/app"}, nil, "checking recipe"},
		{"no package", Recipe{Module: "example.com/app", Version: "v1.2.3"}, nil, "it names no package"},
		{"file name with a directory", Recipe{Module: "example.com/app", Version: "v1.2.3", Packages: []Package{{Path: "example.com/app", Name: "../x"}}}, nil, "not a plain file name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, store := o, open(t)
			if tt.o != nil {
				tt.o(&o)
			}
			blobs, err := Build(t.Context(), store, tt.r, o)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, %v; want an error with %q", blobs, err, tt.want)
			}
			if left, _ := filepath.Glob(filepath.Join(store.Dir(), "tmp", "*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// A cancelled build kills what go has started, too.
func TestCancelKillsTheGroup(t *testing.T) {
	dir := t.TempDir()
	pidfile := filepath.Join(dir, "pid")
	script := filepath.Join(dir, "go")
	must(t, os.WriteFile(script, []byte("#!/bin/sh\nsleep 60 &\necho $! > "+pidfile+".new\nmv "+pidfile+".new "+pidfile+"\nwait\n"), 0o755))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for range 500 {
			if _, err := os.Stat(pidfile); err == nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	start := time.Now()
	_, err := Build(ctx, open(t), app(), Options{Go: script, Env: os.Environ()})
	if !errors.Is(err, context.Canceled) || time.Since(start) > 20*time.Second {
		t.Fatalf("got %v after %v", err, time.Since(start))
	}
	data, err := os.ReadFile(pidfile)
	must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	must(t, err)
	for range 100 {
		if gone(pid) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("process %d still runs", pid)
}

// gone reports whether a process has ended, be it reaped or not.
func gone(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestNoHome(t *testing.T) {
	store := open(t)
	o := options(t)
	got := strings.Join(filterEnv([]string{"PATH=/bin", "GOFLAGS=-race", "LD_PRELOAD=x", "HOME="}, store.Dir()), "\n")
	want := "PATH=/bin\nGOPATH=" + store.Dir() + "/go\nGOCACHE=" + store.Dir() + "/go/cache"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	v, err := Version(t.Context(), store, Options{Go: o.Go})
	if err != nil || !strings.HasPrefix(v, "go1.") {
		t.Errorf("version %q, %v", v, err)
	}
}

func TestDefaultName(t *testing.T) {
	for pkg, want := range map[string]string{
		"k8s.io/kubernetes/cmd/kubelet": "kubelet",
		"go.etcd.io/etcd/server/v3":     "server",
		"example.com/v1":                "v1",
		"example.com/x/v10":             "x",
		"v2":                            "v2",
	} {
		if got := defaultName(pkg); got != want {
			t.Errorf("%s: got %s, want %s", pkg, got, want)
		}
	}
}

func TestMainModule(t *testing.T) {
	own, err := modfile.Parse("go.mod", []byte(`module example.com/app

go 1.22

toolchain go1.23.1

godebug default=go1.21

require (
	example.com/a v0.0.0
	example.com/b v1.0.0
	example.com/c v0.0.0 // indirect
	other.org/d v1.1.0
	other.org/f v1.5.0
)

replace (
	example.com/a => ./staging/a
	other.org/d => ../d
	other.org/e v1.0.0 => other.org/fork v1.3.0
	other.org/forbidden => ./FORBIDDEN
)

exclude other.org/f v1.4.0
`), nil)
	must(t, err)
	got, err := mainModule(app(), own)
	must(t, err)
	want := `module kscratch.invalid/build

go 1.22

require (
	example.com/app v1.2.3
	example.com/a v0.0.0
	example.com/b v1.0.0
	example.com/c v0.0.0 // indirect
	other.org/d v1.1.0
	other.org/f v1.5.0
)

godebug default=go1.21

exclude other.org/f v1.4.0

replace example.com/a => example.com/a v0.2.3

replace other.org/e v1.0.0 => other.org/fork v1.3.0

replace example.com/c => example.com/c v0.2.3
`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestRecipes(t *testing.T) {
	kubernetes, err := Kubernetes("v1.36.3", time.Time{})
	must(t, err)
	tests, err := KubernetesTests("v1.36.3")
	must(t, err)
	for _, r := range []Recipe{kubernetes, tests, CRIDockerd("v0.3.17"), Etcd("v3.6.8"), Etcdctl("v3.6.8"), Etcdutl("v3.6.8"), CoreDNS("v1.14.7"), Flannel("v0.28.0")} {
		if err := r.Check(); err != nil || r.Sum == "" {
			t.Errorf("%s: %v, sum %q", r, err, r.Sum)
		}
	}
	for _, want := range []string{
		" -X k8s.io/component-base/version.gitVersion=v1.36.3 ", " -X k8s.io/client-go/pkg/version.gitMinor=36",
		" -X k8s.io/component-base/version.gitCommit= ", " -X k8s.io/component-base/version.buildDate=1970-01-01T00:00:00Z ",
	} {
		if !strings.Contains(kubernetes.Ldflags+" ", want) {
			t.Errorf("ldflags %q lack %q", kubernetes.Ldflags, want)
		}
	}
	rc, err := Kubernetes("v1.37.0-rc.1", time.Unix(1_800_000_000, 0))
	must(t, err)
	if rc.Pins[0].Version != "v0.37.0-rc.1" || rc.Sum != "" || !strings.Contains(rc.Ldflags, "gitMinor=37+") || !strings.Contains(rc.Ldflags, "buildDate=2027-01-15T08:00:00Z") {
		t.Errorf("release candidate: %+v", rc)
	}
	for _, bad := range []string{"", "1.36.3", "v1.36", "v2.0.0", "latest", "v1.36.3+build", "v1.36.3 -X x=y"} {
		if r, err := Kubernetes(bad, time.Time{}); err == nil {
			t.Errorf("version %q: %+v", bad, r)
		}
	}
}

// A go.mod comes from outside: reading one never panics, and what is written
// for it requires the module that was asked for.
func FuzzMainModule(f *testing.F) {
	for _, m := range published {
		f.Add([]byte(m["go.mod"]))
	}
	f.Add([]byte("module x\ngo 1.21\nreplace a => ./b\nreplace a v1.0.0 => c v1.0.0\nexclude a v1.0.1\ngodebug a=b\n"))
	f.Add([]byte("module x\nrequire example.com/app v1.0.0\nrequire example.com/app v1.2.3\n"))
	f.Add([]byte("module x\nrequire \"\\n)\" v0.0.0\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		own, err := modfile.Parse("go.mod", data, nil)
		if err != nil {
			return
		}
		out, err := mainModule(app(), own)
		if err != nil {
			return
		}
		got, err := modfile.Parse("go.mod", out, nil)
		if err != nil || got.Module.Mod.Path != mainPath || len(got.Require) == 0 || got.Require[0].Mod.String() != app().String() {
			t.Errorf("wrote, %v:\n%s", err, out)
		}
	})
}
