package firstboot

import "strings"

// Argument is one word of a kernel command line.
type Argument struct {
	Key   string
	Value string // without quotes; empty if the word has no "="
}

// ParseCommandLine splits a kernel command line as the kernel's own parser
// does (lib/cmdline.c, next_arg): words are separated by white space, double
// quotes keep white space together and are dropped where they enclose a word
// or a value; there are no escapes. An open quote reaches to the end.
func ParseCommandLine(s string) []Argument {
	var args []Argument
	for {
		s = strings.TrimLeft(s, space)
		if s == "" {
			return args
		}
		word, rest := cutWord(s)
		args = append(args, parseWord(word))
		s = rest
	}
}

// space is what the kernel takes for white space (lib/ctype.c), for bytes
// below 128.
const space = " \t\n\v\f\r"

// cutWord splits s after its first word. It is never called with s empty or
// beginning with white space.
func cutWord(s string) (word, rest string) {
	inQuote := false
	for i := range len(s) {
		if s[i] == '"' {
			inQuote = !inQuote
		}
		if !inQuote && strings.IndexByte(space, s[i]) >= 0 {
			return s[:i], s[i:]
		}
	}
	return s, ""
}

func parseWord(word string) Argument {
	if w, ok := strings.CutPrefix(word, `"`); ok {
		word = strings.TrimSuffix(w, `"`)
	}
	key, value, _ := strings.Cut(word, "=")
	if v, ok := strings.CutPrefix(value, `"`); ok {
		value = strings.TrimSuffix(v, `"`)
	}
	return Argument{Key: key, Value: value}
}

// Lookup returns the value of the last argument with a key. As for the kernel
// and systemd, the last one wins and "-" and "_" in keys are the same.
func Lookup(args []Argument, key string) (value string, ok bool) {
	same := strings.NewReplacer("-", "_")
	for _, a := range args {
		if same.Replace(a.Key) == same.Replace(key) {
			value, ok = a.Value, true
		}
	}
	return value, ok
}
