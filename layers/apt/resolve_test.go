package apt

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kscratch/kscratch/layers"
)

// entry completes a few fields, written as "Name Version; Field: value; …", to
// an entry of a Packages file.
func entry(s string) string {
	fields := strings.Split(s, "; ")
	name, version, _ := strings.Cut(fields[0], " ")
	text := fmt.Sprintf("Package: %s\nVersion: %s\nFilename: pool/%s.deb\nSize: 1\nSHA256: %s\n", name, version, name, layers.DigestOf([]byte(s)).Hex())
	if !strings.Contains(s, "Architecture:") {
		text += "Architecture: amd64\n"
	}
	return text + strings.Join(fields[1:], "\n") + "\n\n"
}

// indexOf makes an index of suites named s0, s1, … with entries.
func indexOf(t testing.TB, suites ...[]string) *Index {
	t.Helper()
	var in []suiteIndex
	for i, entries := range suites {
		s := Suite{Name: fmt.Sprintf("s%d", i), Archive: Archive}
		var text strings.Builder
		for _, e := range entries {
			text.WriteString(entry(e))
		}
		cs, err := parsePackages(strings.NewReader(text.String()), s, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		in = append(in, suiteIndex{Release{Suite: s.Name, Date: time.Unix(int64(i), 0)}, cs})
	}
	x, err := newIndex(in, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestResolve(t *testing.T) {
	for _, c := range []struct {
		name    string
		index   []string
		updates []string
		names   string
		want    string // packages as name=version, or an error
	}{
		{name: "nothing", names: "", want: ""},
		{name: "one", index: []string{"aa 1"}, names: "aa", want: "aa=1"},
		{name: "named twice", index: []string{"aa 1"}, names: "aa aa", want: "aa=1"},
		{
			name:  "chain of both kinds of dependency",
			index: []string{"aa 1; Depends: bb", "bb 1; Pre-Depends: cc", "cc 1", "dd 1"},
			names: "aa", want: "aa=1 bb=1 cc=1",
		},
		{name: "circle", index: []string{"aa 1; Depends: bb", "bb 1; Depends: aa"}, names: "bb", want: "aa=1 bb=1"},
		{name: "no recommends", index: []string{"aa 1; Recommends: bb; Suggests: bb", "bb 1"}, names: "aa", want: "aa=1"},
		{name: "for all architectures", index: []string{"aa 1; Architecture: all"}, names: "aa", want: "aa=1"},
		{name: "for another architecture", index: []string{"aa 1; Architecture: arm64"}, names: "aa", want: "error: resolving packages: aa cannot be had: the archive has no aa"},
		{name: "newest in one suite", index: []string{"aa 1.9", "aa 1.10", "aa 1.10~rc1"}, names: "aa", want: "aa=1.10"},
		{name: "newest of all suites", index: []string{"aa 1"}, updates: []string{"aa 1+deb13u1"}, names: "aa", want: "aa=1+deb13u1"},
		{name: "the older suite may be newer", index: []string{"aa 2"}, updates: []string{"aa 1"}, names: "aa", want: "aa=2"},
		{name: "pinned", index: []string{"aa 1", "aa 2"}, names: "aa=1", want: "aa=1"},
		{name: "pinned and named", index: []string{"aa 1", "aa 2"}, names: "aa aa=1", want: "aa=1"},
		{name: "pinned as a dependency", index: []string{"aa 1", "aa 2", "bb 1; Depends: aa"}, names: "bb aa=1", want: "aa=1 bb=1"},
		{name: "pinned to what is not there", index: []string{"aa 1", "aa 2"}, names: "aa=3", want: "error: resolving packages: aa=3 cannot be had: the archive has aa 2, 1"},
		{name: "pinned twice", index: []string{"aa 1", "aa 2"}, names: "aa=1 aa=2", want: "error: resolving packages: aa is asked for in two versions, 1 and 2"},
		{name: "pin and dependency disagree", index: []string{"aa 1", "aa 2", "bb 1; Depends: aa (>= 2)"}, names: "bb aa=1", want: "error: resolving packages: bb → aa (>= 2): cannot be had: aa is asked for as 1, the archive has 2, 1"},
		{name: "excluded", index: []string{"aa 1; Depends: bb | cc", "bb 1", "cc 1"}, names: "aa bb-", want: "aa=1 cc=1"},
		{name: "excluded but needed", index: []string{"aa 1; Depends: bb", "bb 1"}, names: "aa bb-", want: "error: resolving packages: aa → bb: cannot be had: bb is excluded"},
		{name: "excluded and asked for", index: []string{"aa 1"}, names: "aa aa-", want: "error: resolving packages: aa is both asked for and excluded"},
		{name: "not a name", names: "../x", want: `error: resolving packages: "../x" is not a package name`},

		{name: "versions met", index: []string{"aa 1; Depends: bb (>= 1), bb (<= 1), bb (= 1), bb (>> 0), bb (<< 2)", "bb 1"}, names: "aa", want: "aa=1 bb=1"},
		{name: "version too old", index: []string{"aa 1; Depends: bb (>= 2)", "bb 1"}, names: "aa", want: "error: resolving packages: aa → bb (>= 2): cannot be had: the archive has bb 1"},
		{name: "version too new", index: []string{"aa 1; Depends: bb (<< 1)", "bb 1"}, names: "aa", want: "error: resolving packages: aa → bb (<< 1): cannot be had: the archive has bb 1"},
		{
			name:  "the whole chain",
			index: []string{"kubelet-image 1; Depends: docker.io", "docker.io 1; Depends: containerd", "containerd 1; Depends: runc (>= 2) | crun"},
			names: "kubelet-image", want: "error: resolving packages: kubelet-image → docker.io → containerd → runc (>= 2) | crun: cannot be had: the archive has no runc; the archive has no crun",
		},

		{name: "first alternative", index: []string{"aa 1; Depends: cc | bb", "bb 1", "cc 1"}, names: "aa", want: "aa=1 cc=1"},
		{name: "alternative that is asked for", index: []string{"aa 1; Depends: cc | bb", "bb 1", "cc 1"}, names: "aa bb", want: "aa=1 bb=1"},
		{name: "alternative that is needed anyway", index: []string{"aa 1; Depends: cc | bb, dd", "bb 1", "cc 1", "dd 1; Depends: bb"}, names: "aa", want: "aa=1 bb=1 dd=1"},
		{name: "alternative of the right version", index: []string{"aa 1; Depends: bb (>= 2) | cc", "bb 1", "cc 1"}, names: "aa", want: "aa=1 cc=1"},
		{name: "alternative taken back", index: []string{"aa 1; Depends: bb | cc", "bb 1; Depends: zz", "cc 1"}, names: "aa", want: "aa=1 cc=1"},
		{
			name:  "alternatives taken back in depth",
			index: []string{"aa 1; Depends: bb | cc, dd | ee", "bb 1", "cc 1", "dd 1; Depends: zz | ff", "ff 1; Conflicts: bb; Breaks: cc", "ee 1; Conflicts: bb"},
			names: "aa", want: "aa=1 cc=1 ee=1",
		},

		{name: "provided", index: []string{"aa 1; Depends: vv", "bb 1; Provides: vv"}, names: "aa", want: "aa=1 bb=1"},
		{name: "provided name asked for", index: []string{"bb 1; Provides: vv"}, names: "vv", want: "bb=1"},
		{name: "a real package before one that provides", index: []string{"aa 1; Depends: bb", "bb 1", "bc 1; Provides: bb"}, names: "aa", want: "aa=1 bb=1"},
		{name: "asked for by name, no stand-in", index: []string{"aa 1; Provides: bb", "bb 1"}, names: "aa bb", want: "aa=1 bb=1"},
		{name: "provider of the highest priority", index: []string{"bb 1; Provides: vv", "cc 1; Provides: vv; Priority: important"}, names: "vv", want: "cc=1"},
		{name: "provider that is there", index: []string{"aa 1; Depends: vv", "bb 1; Provides: vv", "cc 1; Provides: vv"}, names: "aa cc", want: "aa=1 cc=1"},
		{name: "only the newest version provides", index: []string{"aa 1; Depends: vv", "bb 1; Provides: vv", "bb 2"}, names: "aa", want: "error: resolving packages: aa → vv: cannot be had: the archive has no vv"},
		{name: "provided in a version", index: []string{"aa 1; Depends: vv (>= 2)", "bb 1; Provides: vv (= 3)"}, names: "aa", want: "aa=1 bb=1"},
		{name: "provided in another version", index: []string{"aa 1; Depends: vv (>= 2)", "bb 1; Provides: vv (= 1)"}, names: "aa", want: "error: resolving packages: aa → vv (>= 2): cannot be had: the archive has no vv"},
		{name: "provided in no version", index: []string{"aa 1; Depends: vv (>= 2)", "bb 1; Provides: vv"}, names: "aa", want: "error: resolving packages: aa → vv (>= 2): cannot be had: the archive has no vv"},
		{name: "provides what it needs", index: []string{"aa 1; Depends: vv; Provides: vv"}, names: "aa", want: "aa=1"},

		{name: "any architecture", index: []string{"aa 1; Depends: python3:any (>= 3)", "python3 3.13"}, names: "aa", want: "aa=1 python3=3.13"},
		{name: "this architecture", index: []string{"aa 1; Depends: bb:amd64, cc:native", "bb 1", "cc 1"}, names: "aa", want: "aa=1 bb=1 cc=1"},
		{name: "another architecture", index: []string{"aa 1; Depends: bb:arm64", "bb 1"}, names: "aa", want: "error: resolving packages: aa → bb:arm64: cannot be had: bb is wanted for another architecture"},

		{name: "conflict", index: []string{"aa 1; Conflicts: bb", "bb 1"}, names: "aa bb", want: "error: resolving packages: bb cannot be had: bb=1 cannot be beside aa=1: aa has Conflicts: bb (aa)"},
		{name: "conflict the other way", index: []string{"aa 1", "bb 1; Conflicts: aa"}, names: "aa bb", want: "error: resolving packages: bb cannot be had: bb=1 cannot be beside aa=1: bb has Conflicts: aa (aa)"},
		{name: "breaks an old version", index: []string{"aa 1; Breaks: bb (<< 2)", "bb 1"}, names: "aa bb", want: "error: resolving packages: bb cannot be had: bb=1 cannot be beside aa=1: aa has Breaks: bb (<< 2) (aa)"},
		{name: "breaks no new version", index: []string{"aa 1; Breaks: bb (<< 2)", "bb 2"}, names: "aa bb", want: "aa=1 bb=2"},
		{name: "conflict deep down", index: []string{"aa 1; Depends: bb", "bb 1; Depends: dd", "dd 1", "ee 1; Conflicts: dd"}, names: "aa ee", want: "error: resolving packages: aa → bb → dd: cannot be had: dd=1 cannot be beside ee=1: ee has Conflicts: dd (ee)"},
		{name: "conflict with what is provided", index: []string{"aa 1; Conflicts: vv", "bb 1; Provides: vv"}, names: "aa bb", want: "error: resolving packages: bb cannot be had: bb=1 cannot be beside aa=1: aa has Conflicts: vv (aa)"},
		{name: "no conflict with itself", index: []string{"aa 1; Conflicts: vv, aa (<< 1); Provides: vv; Breaks: vv"}, names: "aa", want: "aa=1"},
		{name: "conflict avoided by an alternative", index: []string{"aa 1; Depends: bb | cc", "bb 1; Conflicts: dd", "cc 1", "dd 1"}, names: "aa dd", want: "aa=1 cc=1 dd=1"},
		{name: "a broken relation nobody needs", index: []string{"aa 1", "bb 1; Depends: ((("}, names: "aa", want: "aa=1"},
		{name: "a broken relation", index: []string{"bb 1; Depends: ((("}, names: "bb", want: `error: resolving packages: reading Depends of bb=1: "(((" is not a relation to a package`},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := indexOf(t, c.index, c.updates)
			names := strings.Fields(c.names)
			if got := resolved(x, names); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			slices.Reverse(names)
			if got := resolved(x, names); got != c.want && !strings.HasPrefix(c.want, "error:") {
				t.Errorf("the order of names matters: got %s\nwant %s", got, c.want)
			}
		})
	}
}

func resolved(x *Index, names []string) string {
	ps, err := x.Resolve(names)
	if err != nil {
		return "error: " + err.Error()
	}
	var out []string
	for _, p := range ps {
		out = append(out, p.String())
	}
	return strings.Join(out, " ")
}

func TestRequires(t *testing.T) {
	x := indexOf(t, []string{"aa 1; Depends: dd | cc, vv, aa", "bb 1; Provides: vv", "cc 1; Pre-Depends: bb", "dd 1"})
	ps, err := x.Resolve([]string{"aa", "cc"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range ps {
		got = append(got, fmt.Sprint(p.Name, p.Requires))
	}
	if got, want := strings.Join(got, " "), "aa[bb cc] bb[] cc[bb]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The same version in two suites is the first one's.
func TestSuiteOrder(t *testing.T) {
	x := indexOf(t, []string{"aa 1"}, []string{"aa 1", "bb 1; Essential: yes"}, []string{"aa 0", "cc 1; Essential: yes"})
	ps, err := x.Resolve([]string{"aa", "bb"})
	if err != nil || len(ps) != 2 || ps[0].Suite != "s0" || ps[1].Suite != "s1" {
		t.Errorf("got %v, %v", ps, err)
	}
	if got := fmt.Sprint(x.Essential(), x.Versions("aa"), x.Date().Unix()); got != "[bb cc] [1 0] 2" {
		t.Errorf("essential, versions and date: %s", got)
	}
}

// A search without a solution ends.
func TestResolveBounded(t *testing.T) {
	index := []string{"bad 1; Depends: none | nought", "none 1; Depends: zz", "nought 1; Depends: zz"}
	names := []string{"bad"}
	for i := range 30 {
		index = append(index, fmt.Sprintf("p%d 1; Depends: p%da | p%db", i, i, i), fmt.Sprintf("p%da 1", i), fmt.Sprintf("p%db 1", i))
		names = append(names, fmt.Sprintf("a%d", i))
		index = append(index, fmt.Sprintf("a%d 1; Depends: p%d", i, i))
	}
	got := resolved(indexOf(t, index), names)
	if !strings.Contains(got, "bad → none → zz: cannot be had: the archive has no zz") {
		t.Errorf("got %s", got)
	}
}

func TestParsePackages(t *testing.T) {
	good := entry("aa 1; Source: src (2); Section: net")
	cs, err := parsePackages(strings.NewReader(good), Suite{Name: "trixie", Archive: Security}, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	want := Package{
		Name: "aa", Version: "1", Arch: "amd64", Source: "src", SourceVersion: "2", Section: "net", Archive: Security, Suite: "trixie",
		Filename: "pool/aa.deb", Size: 1, Digest: cs[0].Digest,
	}
	if got := fmt.Sprintf("%+v", cs[0].Package); got != fmt.Sprintf("%+v", want) {
		t.Errorf("got %s, want %+v", got, want)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"no name", "Package: aa", "X: y", `reading package "": "" is not a package name`},
		{"bad version", "Version: 1", "Version: 1/2", `"1/2" is not a version`},
		{"bad source", "Source: src (2)", "Source: ../x", `"../x" is not a package name`},
		{"no size", "Size: 1", "X: y", `size "" is not a positive number`},
		{"negative size", "Size: 1", "Size: -1", `size "-1" is not a positive number`},
		{"no digest", "SHA256: ", "MD5sum: ", "want sha256: and 64 lower-case hex digits"},
		{"absolute file name", "Filename: pool", "Filename: /pool", "is not a path below the archive"},
		{"file name out of the archive", "Filename: pool", "Filename: ../pool", "is not a path below the archive"},
		{"not fields", "Package: aa", "junk", `line "junk" is not a field`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parsePackages(strings.NewReader(strings.Replace(good, c.old, c.new, 1)), Suite{}, "amd64")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %s", err, c.want)
			}
		})
	}
	if _, err := newIndex([]suiteIndex{{packages: []*candidate{{Package: Package{Name: "aa"}, provides: "a | b"}}}}, "amd64"); err == nil {
		t.Error("alternatives in Provides are accepted")
	}
}

func FuzzPackages(f *testing.F) {
	f.Add(entry("aa 1; Depends: bb (>= 1) | cc, dd:any; Provides: vv (= 1)") + entry("bb 2; Conflicts: aa; Breaks: cc") + entry("cc 0~1; Essential: yes"))
	f.Add(entry("aa 1; Depends: aa, vv") + entry("aa 2; Provides: vv") + entry("vv 1; Architecture: all"))
	f.Fuzz(func(t *testing.T, text string) {
		cs, err := parsePackages(strings.NewReader(text), Suite{Name: "trixie", Archive: Archive}, "amd64")
		if err != nil {
			return
		}
		x, err := newIndex([]suiteIndex{{packages: cs}}, "amd64")
		if err != nil || len(x.byName) > 20 {
			return
		}
		for name := range x.byName {
			if a, b := resolved(x, []string{name}), resolved(x, []string{name}); a != b {
				t.Errorf("%s: got %s, then %s", name, a, b)
			}
		}
	})
}

func TestParseRelations(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "[]"},
		{" ", "[]"},
		{"aa", "[aa]"},
		{"aa,bb , cc|dd", "[aa bb cc | dd]"},
		{"aa(>=1)", "[aa (>= 1)]"},
		{"aa ( >= 1:2~a+b-3 )", "[aa (>= 1:2~a+b-3)]"},
		{"aa (< 1), aa (> 1)", "[aa (<= 1) aa (>= 1)]"},
		{"aa:any (= 1)", "[aa:any (= 1)]"},
		{"aa,", "[aa]"},
		{"aa,,bb", `"" is not a relation to a package`},
		{"aa | ", `"" is not a relation to a package`},
		{"aa:", `"aa:" is not a relation to a package`},
		{"aa bb", `"aa bb" is not a relation to a package`},
		{"aa (1)", `"aa (1)" is not a relation to a package`},
		{"aa (>= )", `"aa (>= )" is not a relation to a package`},
		{"aa (== 1)", `"aa (== 1)" is not a relation to a package`},
		{"aa (>= 1", `"aa (>= 1" is not a relation to a package`},
		{"aa [amd64]", `"aa [amd64]" is not a relation to a package`},
		{"aa <!nocheck>", `"aa <!nocheck>" is not a relation to a package`},
		{"${shlibs:Depends}", `"${shlibs:Depends}" is not a relation to a package`},
	} {
		gs, err := parseRelations(c.in)
		got := fmt.Sprint(gs)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%q: got %s, want %s", c.in, got, c.want)
		}
	}
}

func FuzzRelations(f *testing.F) {
	f.Add("aa:any (>= 1:2~a-3) | bb (<< 1), cc")
	f.Add("aa (= 1) (= 2), ,|")
	f.Fuzz(func(t *testing.T, s string) {
		gs, err := parseRelations(s)
		if err != nil {
			return
		}
		var parts []string
		for _, g := range gs {
			parts = append(parts, g.String())
		}
		again, err := parseRelations(strings.Join(parts, ", "))
		if err != nil || fmt.Sprint(again) != fmt.Sprint(gs) {
			t.Errorf("%q: read as %v, written and read again as %v, %v", s, gs, again, err)
		}
	})
}
