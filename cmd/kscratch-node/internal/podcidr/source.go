package podcidr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/kscratch/kscratch/ignition/firstboot"
)

// choice is a valid pod CIDR and where it came from.
type choice struct {
	cidr   netip.Prefix
	source string
}

// source is one place that may hold a pod CIDR.
type source struct {
	name string // as an operator would call it
	read func(ctx context.Context) (text string, err error)
}

// finder looks through the sources.
type finder struct {
	*run
	decrypted map[string]decryption // by source
}

// decryption remembers a result, since asking a TPM every two seconds for the
// same thing would keep it from everybody else.
type decryption struct {
	in, out string
	err     error
	retry   int // looks until an error is tried again
}

// wait looks until a source has a valid pod CIDR.
func (f *finder) wait(ctx context.Context) (choice, error) {
	for waiting := false; ; waiting = true {
		c, problem := f.find(ctx, waiting)
		if problem == "" {
			return c, nil
		}
		f.say.Cry("waiting for this node's pod CIDR: " + problem + " Nothing starts until then.")
		if err := sleep(ctx, f.Interval); err != nil {
			return choice{}, fmt.Errorf("waiting for a pod CIDR: %w", err)
		}
	}
}

// find returns the value of the first source that holds anything, or a
// sentence for the operator about what is wrong.
func (f *finder) find(ctx context.Context, waiting bool) (_ choice, problem string) {
	plan := f.cfg.Networks()
	for _, s := range f.sources(waiting) {
		text, err := s.read(ctx)
		if isAbsent(err) {
			continue
		}
		p, err := check(plan, text, err)
		if err != nil {
			return choice{}, fmt.Sprintf("bad value in %s: %v. Lower sources are not used while this one is bad.", s.name, err)
		}
		return choice{cidr: p, source: s.name}, ""
	}
	return choice{}, fmt.Sprintf("none was given. Give a range inside %s, such as %s, as systemd credential %s (SMBIOS, fw_cfg, "+
		"or loader/credentials/%[3]s.cred on the EFI system partition), as kernel argument %s= or in /%s.",
		plan.Cluster, plan.Example(), firstboot.CredentialName, firstboot.KernelArgument, userPath)
}

// check returns the pod CIDR in a text that was read, unless reading failed.
func check(plan firstboot.Networks, text string, err error) (netip.Prefix, error) {
	if err != nil {
		return netip.Prefix{}, err
	}
	p, err := firstboot.ParsePodCIDR(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return p, plan.Check(p)
}

// isAbsent reports whether err says that there is no such file.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// sources lists the sources in order. The system's credentials are read where
// they lie, and the unit must not use ImportCredential= for ours: systemd 257
// fails a unit whose imported credential is in @encrypted but is plain text,
// which is the very case of a range written into a file on the EFI system
// partition.
//
// The mounted EFI system partition stands
// before the copy that systemd-stub took of it at boot, as it may be newer. It
// is left alone until we have to wait: looking at it would mount it on each
// boot.
func (f *finder) sources(waiting bool) []source {
	var s []source
	if dir := strings.TrimPrefix(path.Clean(f.Credentials), "/"); dir != "" && dir != "." {
		s = append(s, f.credential(path.Join(dir, firstboot.CredentialName)))
	}
	s = append(s, f.credential("run/credentials/@system/"+firstboot.CredentialName))
	if waiting {
		for _, esp := range []string{"efi", "boot"} {
			s = append(s, f.credential(esp+"/loader/credentials/"+firstboot.CredentialName+".cred"))
		}
	}
	return append(s,
		f.credential("run/credentials/@encrypted/"+firstboot.CredentialName),
		source{"kernel argument " + firstboot.KernelArgument + "=", f.kernelArgument},
		f.file("file", userPath),
		f.file("the value remembered in", rememberedPath),
	)
}

func (f *finder) kernelArgument(context.Context) (string, error) {
	line, err := f.readSmall("proc/cmdline")
	if err != nil {
		return "", err
	}
	v, ok := firstboot.Lookup(firstboot.ParseCommandLine(line), firstboot.KernelArgument)
	if !ok {
		return "", fs.ErrNotExist
	}
	return v, nil
}

func (f *finder) file(kind, name string) source {
	return source{kind + " /" + name, func(context.Context) (string, error) { return f.readSmall(name) }}
}

func (f *finder) credential(name string) source {
	return source{"systemd credential /" + name, func(ctx context.Context) (string, error) {
		text, err := f.readSmall(name)
		if err != nil || !isEncrypted(text) {
			return text, err
		}
		return f.decrypt(ctx, name, text)
	}}
}

// maxText bounds a source in bytes; encrypted credentials have a few hundred.
const maxText = 64 << 10

func (f *finder) readSmall(name string) (_ string, err error) {
	// Non-blocking, so that a FIFO in the place of a file cannot hang us.
	r, err := f.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	b, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxText {
		return "", fmt.Errorf("it has more than %d bytes: write only the range", maxText)
	}
	return string(b), nil
}

// isEncrypted tells what systemd-creds writes, which is Base64 of more than a
// hundred bytes, from a range, however misspelt.
func isEncrypted(text string) bool {
	n := 0
	for _, c := range []byte(text) {
		switch {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '+', c == '/', c == '=':
			n++
		default:
			return false
		}
	}
	return n > 64
}

func (f *finder) decrypt(ctx context.Context, name, text string) (string, error) {
	d, known := f.decrypted[name]
	if known && d.in == text && (d.err == nil || d.retry > 0) {
		d.retry--
		f.decrypted[name] = d
		return d.out, d.err
	}
	out, err := f.systemdCreds(ctx, text)
	if f.decrypted == nil {
		f.decrypted = map[string]decryption{}
	}
	f.decrypted[name] = decryption{in: text, out: out, err: err, retry: int(f.Repeat / f.Interval)}
	return out, err
}

func (f *finder) systemdCreds(ctx context.Context, text string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, f.SystemdCreds, "decrypt", "--name="+firstboot.CredentialName, "-", "-")
	c.Stdin = strings.NewReader(text)
	out, err := output(c)
	if err != nil {
		return "", fmt.Errorf("decrypting it: %w", err)
	}
	return out, nil
}

// output runs a program and returns what it prints; the error has the last
// line of what it complains.
func output(c *exec.Cmd) (string, error) {
	var out, complaint bytes.Buffer
	c.Stdout, c.Stderr = &out, &complaint
	// A child that outlives the program must not keep us waiting for its end.
	c.WaitDelay = time.Second
	if err := c.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(complaint.String()), "\n")
		return "", fmt.Errorf("%s: %w: %q", path.Base(c.Path), err, lines[len(lines)-1])
	}
	return out.String(), nil
}
