package firstboot

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

var plan = Networks{
	Cluster: netip.MustParsePrefix("10.244.0.0/16"),
	Service: netip.MustParsePrefix("10.96.0.0/12"),
}

// acceptTable: what a user may write, and what they are told otherwise.
var acceptTable = []struct{ in, want string }{
	{"10.244.1.0/24", "10.244.1.0/24"},
	{" \t10.244.1.0/24\r\n", "10.244.1.0/24"},
	{"10.244.0.0/16", "10.244.0.0/16"},
	{"10.244.255.252/30", "10.244.255.252/30"},
	{"", "it is empty: write a range such as 10.244.1.0/24, or remove it"},
	{" \n", "it is empty: write a range such as 10.244.1.0/24, or remove it"},
	{"10.244.1.7/24", `"10.244.1.7/24" has host bits set: write the network address, 10.244.1.0/24`},
	{"10.244.1.0", `"10.244.1.0" is not a range of addresses: add the number of network bits, as in 10.244.1.0/24`},
	{"10.244.1/24", `"10.244.1/24" is not a range of addresses: write an IPv4 network address, a slash and the number of its bits, such as 10.244.1.0/24`},
	{"10.244.1.0/255.255.255.0", `"10.244.1.0/255.255.255.0" is not a range of addresses: write an IPv4 network address, a slash and the number of its bits, such as 10.244.1.0/24`},
	{"10.244.01.0/24", `"10.244.01.0/24" is not a range of addresses: write an IPv4 network address, a slash and the number of its bits, such as 10.244.1.0/24`},
	{"10.244.1.0/33", `"10.244.1.0/33" is not a range of addresses: write an IPv4 network address, a slash and the number of its bits, such as 10.244.1.0/24`},
	{"10.244.1.0/24 10.244.2.0/24", `"10.244.1.0/24 10.244.2.0/24" is not a range of addresses: write an IPv4 network address, a slash and the number of its bits, such as 10.244.1.0/24`},
	{"a\x1b[2J", `"a\x1b[2J" is not a range of addresses: write an IPv4 network address, a slash and the number of its bits, such as 10.244.1.0/24`},
	{"fd00:1::/64", `"fd00:1::/64" is not IPv4: write an IPv4 range such as 10.244.1.0/24`},
	{"::ffff:10.244.1.0/120", `"::ffff:10.244.1.0/120" is not IPv4: write an IPv4 range such as 10.244.1.0/24`},
	{"10.244.1.0/31", `"10.244.1.0/31" has a prefix of 31 bits: write one of /8 to /30, such as /24`},
	{"10.0.0.0/7", `"10.0.0.0/7" has a prefix of 7 bits: write one of /8 to /30, such as /24`},
	{"10.245.1.0/24", "10.245.1.0/24 is not inside the cluster range 10.244.0.0/16: choose a part of it, such as 10.244.1.0/24"},
	{"10.0.0.0/8", "10.0.0.0/8 overlaps the service range 10.96.0.0/12: choose a range inside 10.244.0.0/16, such as 10.244.1.0/24"},
	{"10.244.0.0/15", "10.244.0.0/15 is not inside the cluster range 10.244.0.0/16: choose a part of it, such as 10.244.1.0/24"},
	{"10.96.1.0/24", "10.96.1.0/24 overlaps the service range 10.96.0.0/12: choose a range inside 10.244.0.0/16, such as 10.244.1.0/24"},
}

func accept(s string) string {
	p, err := ParsePodCIDR(s)
	if err == nil {
		err = plan.Check(p)
	}
	if err != nil {
		return err.Error()
	}
	return p.String()
}

func TestPodCIDR(t *testing.T) {
	for _, c := range acceptTable {
		if got := accept(c.in); got != c.want {
			t.Errorf("%q:\n got %s\nwant %s", c.in, got, c.want)
		}
	}
	if got := accept(strings.Repeat("x", 1<<20)); len(got) > 300 {
		t.Errorf("message about a long value has %d bytes", len(got))
	}
}

func FuzzParsePodCIDR(f *testing.F) {
	for _, c := range acceptTable {
		f.Add(c.in)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePodCIDR(s)
		if err != nil {
			if len(err.Error()) > 400 || strings.ContainsAny(err.Error(), "\n\r\x1b\x00") {
				t.Fatalf("message is not one clean line: %q", err)
			}
			return
		}
		again, err := ParsePodCIDR(p.String())
		if err != nil || again != p || p != p.Masked() || !p.Addr().Is4() || p.Bits() < MinBits || p.Bits() > MaxBits {
			t.Fatalf("%q gave %s, and that gives %s, %v", s, p, again, err)
		}
		if a := BridgeAddress(p); !p.Contains(a.Addr()) || a.Addr() == p.Addr() {
			t.Fatalf("bridge address %s of %s", a, p)
		}
		if err := CheckNodeName(NodeName("master", p)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDerived(t *testing.T) {
	for _, c := range []struct{ pod, bridge, name string }{
		{"10.244.1.0/24", "10.244.1.1/24", "master-10-244-1-0"},
		{"10.244.255.252/30", "10.244.255.253/30", "master-10-244-255-252"},
		{"10.0.0.0/8", "10.0.0.1/8", "master-10-0-0-0"},
	} {
		p := netip.MustParsePrefix(c.pod)
		if got := BridgeAddress(p).String(); got != c.bridge {
			t.Errorf("bridge of %s: got %s, want %s", c.pod, got, c.bridge)
		}
		if got := NodeName("master", p); got != c.name {
			t.Errorf("name of %s: got %s, want %s", c.pod, got, c.name)
		}
	}
}

func TestExample(t *testing.T) {
	for _, c := range []struct{ cluster, want string }{
		{"10.244.0.0/16", "10.244.1.0/24"},
		{"10.244.254.0/23", "10.244.255.0/24"},
		{"10.244.255.0/24", "10.244.255.0/24"},
		{"10.0.0.0/8", "10.0.1.0/24"},
	} {
		n := Networks{Cluster: netip.MustParsePrefix(c.cluster), Service: plan.Service}
		if got := n.Example().String(); got != c.want {
			t.Errorf("example in %s: got %s, want %s", c.cluster, got, c.want)
		}
	}
}

func TestCheckNodeName(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, c := range []struct {
		name string
		ok   bool
	}{
		{"master-10-244-1-0", true}, {"n1.rack2.example.com", true}, {long, true},
		{"", false}, {"Node", false}, {"-a", false}, {"a-", false}, {"a..b", false}, {"a_b", false}, {long + "a", false},
	} {
		if err := CheckNodeName(c.name); (err == nil) != c.ok {
			t.Errorf("%q: %v", c.name, err)
		}
	}
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"", ""},
		{"  ro  quiet\n", "ro=|quiet="},
		{"a=1 b= c", "a=1|b=|c="},
		{`a="1 2" b`, "a=1 2|b="},
		{`"a=1 2" b`, "a=1 2|b="},
		{`a="open quote to the end`, "a=open quote to the end"},
		{`a=x"y z"`, `a=x"y z"`},
		{`a=b=c`, "a=b=c"},
		{`"`, "="},
		{"kscratch.pod_cidr=10.244.1.0/24", "kscratch.pod_cidr=10.244.1.0/24"},
	} {
		var got []string
		for _, a := range ParseCommandLine(c.line) {
			got = append(got, a.Key+"="+a.Value)
		}
		if g := strings.Join(got, "|"); g != c.want {
			t.Errorf("%q: got %s, want %s", c.line, g, c.want)
		}
	}
}

func TestLookup(t *testing.T) {
	args := ParseCommandLine("ro kscratch.pod-cidr=1 x=2 kscratch.pod_cidr=3 kscratch.pod_cidrs=4")
	if v, ok := Lookup(args, KernelArgument); !ok || v != "3" {
		t.Errorf("got %q, %t", v, ok)
	}
	if _, ok := Lookup(args, "absent"); ok {
		t.Error("found an absent argument")
	}
}

func FuzzParseCommandLine(f *testing.F) {
	for _, s := range []string{"", "a=1 b", `a="1 2" b`, `"a=1 2"`, `"""`, "a\x00b", "\v\f a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		args := ParseCommandLine(s)
		if strings.Contains(s, `"`) {
			return
		}
		var got []string
		for _, a := range args {
			got = append(got, a.Key, a.Value)
		}
		var want []string
		for w := range strings.FieldsFuncSeq(s, func(r rune) bool { return strings.ContainsRune(space, r) }) {
			k, v, _ := strings.Cut(w, "=")
			want = append(want, k, v)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q: got %q, want %q", s, got, want)
		}
	})
}
