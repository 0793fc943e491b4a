package depmod

import (
	"bytes"
	"fmt"
	"strings"
)

// render writes all files.
func render(mods []*mod, symbols []symbol, builtin []builtinModule) (map[string][]byte, error) {
	out := map[string][]byte{
		"modules.dep":     text("", mods, depText),
		"modules.alias":   text("# Aliases extracted from modules themselves.\n", mods, aliasText),
		"modules.softdep": text("# Soft dependencies extracted from modules themselves.\n", mods, infoText("softdep")),
		"modules.weakdep": text("# Weak dependencies extracted from modules themselves.\n", mods, infoText("weakdep")),
		"modules.devname": text("# Device nodes to trigger on-demand module loading.\n", mods, devnameText),
		"modules.symbols": symbolText(symbols),
	}
	for _, x := range []struct {
		name string
		fill func(*Index) error
	}{
		{"modules.dep.bin", func(x *Index) error { return depIndex(x, mods) }},
		{"modules.alias.bin", func(x *Index) error { return aliasIndex(x, mods) }},
		{"modules.symbols.bin", func(x *Index) error { return symbolIndex(x, symbols) }},
		{"modules.builtin.bin", func(x *Index) error { return builtinIndex(x, builtin) }},
		{"modules.builtin.alias.bin", func(x *Index) error { return builtinAliasIndex(x, builtin) }},
	} {
		var idx Index
		if err := x.fill(&idx); err != nil {
			return nil, fmt.Errorf("writing %s: %w", x.name, err)
		}
		b, err := idx.Encode()
		if err != nil {
			return nil, fmt.Errorf("writing %s: %w", x.name, err)
		}
		out[x.name] = b
	}
	return out, nil
}

func text(header string, mods []*mod, f func(*bytes.Buffer, *mod)) []byte {
	b := bytes.NewBufferString(header)
	for _, m := range mods {
		f(b, m)
	}
	return b.Bytes()
}

func depText(b *bytes.Buffer, m *mod) { b.WriteString(m.depLine() + "\n") }

func aliasText(b *bytes.Buffer, m *mod) {
	for _, a := range m.values("alias") {
		fmt.Fprintf(b, "alias %s %s\n", a, m.name)
	}
}

func infoText(key string) func(*bytes.Buffer, *mod) {
	return func(b *bytes.Buffer, m *mod) {
		for _, v := range m.values(key) {
			fmt.Fprintf(b, "%s %s %s\n", key, m.name, v)
		}
	}
}

// devnameText writes the line of a module that has both a device name and a
// device number among its aliases; of either the last one before both are
// known counts.
func devnameText(b *bytes.Buffer, m *mod) {
	var devname, number string
	for _, a := range m.values("alias") {
		var major, minor uint
		if d, ok := strings.CutPrefix(a, "devname:"); ok {
			devname = d
		} else if n, _ := fmt.Sscanf(a, "char-major-%d-%d", &major, &minor); n == 2 {
			number = fmt.Sprintf("c%d:%d", major, minor)
		} else if n, _ := fmt.Sscanf(a, "block-major-%d-%d", &major, &minor); n == 2 {
			number = fmt.Sprintf("b%d:%d", major, minor)
		}
		if devname != "" && number != "" {
			fmt.Fprintf(b, "%s %s %s\n", m.name, devname, number)
			return
		}
	}
}

func symbolText(symbols []symbol) []byte {
	b := bytes.NewBufferString("# Aliases for symbols, used by symbol_request().\n")
	for _, s := range symbols {
		fmt.Fprintf(b, "alias symbol:%s %s\n", s.name, s.owner.name)
	}
	return b.Bytes()
}

func depIndex(x *Index, mods []*mod) error {
	for _, m := range mods {
		if err := x.Add(m.name, m.depLine(), m.idx); err != nil {
			return err
		}
	}
	return nil
}

func aliasIndex(x *Index, mods []*mod) error {
	for _, m := range mods {
		for _, a := range m.values("alias") {
			if a, ok := underscores(a); ok {
				if err := x.Add(a, m.name, m.idx); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func symbolIndex(x *Index, symbols []symbol) error {
	for _, s := range symbols {
		if err := x.Add("symbol:"+s.name, s.owner.name, s.owner.idx); err != nil {
			return err
		}
	}
	return nil
}

func builtinIndex(x *Index, builtin []builtinModule) error {
	for _, m := range builtin {
		if !m.listed {
			continue
		}
		if err := x.Add(m.name, "", 0); err != nil {
			return err
		}
	}
	return nil
}

func builtinAliasIndex(x *Index, builtin []builtinModule) error {
	for _, m := range builtin {
		for _, a := range m.aliases {
			if a, ok := underscores(a); ok {
				if err := x.Add(a, m.name, 0); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// underscores makes dashes underscores, as modprobe does with what it looks
// for, but not within brackets. An alias whose brackets do not match has no
// place in an index.
func underscores(s string) (string, bool) {
	b := []byte(s)
	in := false
	for i, c := range b {
		switch {
		case c == ']' && !in:
			return "", false
		case c == '[' && !in:
			in = true
		case c == ']':
			in = false
		case c == '-' && !in:
			b[i] = '_'
		}
	}
	return string(b), !in
}
