package deb

import (
	"cmp"
	"fmt"
	"strings"
)

// CheckName reports whether s can be the name of a package, as the Debian
// policy, section 5.6.1, defines it.
func CheckName(s string) error {
	if len(s) < 2 || !isAlnum(s[0]) || strings.ToLower(s) != s {
		return fmt.Errorf("%q is not a package name", clip(s))
	}
	return checkChars(s, "+-.", "package name")
}

// CheckVersion reports whether s can be the version of a package,
// deb-version(7).
func CheckVersion(s string) error {
	if s == "" {
		return fmt.Errorf("%q is not a version", s)
	}
	return checkChars(s, "+-.~:", "version")
}

func checkChars(s, also, what string) error {
	for i := range len(s) {
		if !isAlnum(s[i]) && strings.IndexByte(also, s[i]) < 0 {
			return fmt.Errorf("%q is not a %s", clip(s), what)
		}
	}
	return nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isAlpha(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
func isAlnum(c byte) bool { return isDigit(c) || isAlpha(c) }

// CompareVersions returns -1, 0 or +1 as version a is older than, the same as
// or newer than b, in the order of deb-version(7). Any string is accepted;
// numbers may have any length.
func CompareVersions(a, b string) int {
	ea, ua, ra := splitVersion(a)
	eb, ub, rb := splitVersion(b)
	return cmp.Or(compareNumbers(ea, eb), compareParts(ua, ub), compareParts(ra, rb))
}

// splitVersion cuts [epoch:]upstream[-revision].
func splitVersion(s string) (epoch, upstream, revision string) {
	if e, rest, ok := strings.Cut(s, ":"); ok {
		epoch, s = e, rest
	}
	if i := strings.LastIndexByte(s, '-'); i >= 0 {
		return epoch, s[:i], s[i+1:]
	}
	return epoch, s, ""
}

// compareParts compares alternating runs of non-digits and digits.
func compareParts(a, b string) int {
	for a != "" || b != "" {
		var wa, wb, na, nb string
		wa, a = span(a, false)
		wb, b = span(b, false)
		na, a = span(a, true)
		nb, b = span(b, true)
		if c := cmp.Or(compareWords(wa, wb), compareNumbers(na, nb)); c != 0 {
			return c
		}
	}
	return 0
}

// span cuts the longest prefix of s that consists of digits, or of non-digits.
func span(s string, digits bool) (run, rest string) {
	i := 0
	for i < len(s) && isDigit(s[i]) == digits {
		i++
	}
	return s[:i], s[i:]
}

// compareNumbers compares digits as numbers; none are zero.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// compareWords compares non-digits: a tilde sorts before the end, letters
// before everything else.
func compareWords(a, b string) int {
	for i := range max(len(a), len(b)) {
		if c := cmp.Compare(weight(a, i), weight(b, i)); c != 0 {
			return c
		}
	}
	return 0
}

func weight(s string, i int) int {
	switch {
	case i >= len(s):
		return 0
	case s[i] == '~':
		return -1
	case isAlpha(s[i]):
		return int(s[i])
	}
	return int(s[i]) + 256
}
