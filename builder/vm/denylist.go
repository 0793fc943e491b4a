package vm

import (
	"fmt"
	"regexp"
)

// Rule is a kind of console line that a healthy node never prints.
type Rule struct {
	Name    string // short, for messages
	Pattern string // regular expression, found anywhere in the line
	Fatal   bool   // the machine will not come up any more
}

// Allowed is an exception from the rules.
type Allowed struct {
	Pattern string // regular expression, found anywhere in the line
	Why     string // the reason; required
}

// Finding is a line that breaks a rule.
type Finding struct {
	Line Line
	Rule Rule
}

// String returns the finding as one line of text.
func (f Finding) String() string { return f.Rule.Name + ": " + f.Line.String() }

// rules is the denylist: firmware first, then what comes later in a boot.
var rules = []Rule{
	{"firmware exception", `!!!! .* Exception Type`, true},
	{"firmware found nothing to boot", `BdsDxe: No bootable option|UEFI Interactive Shell|BdsDxe: failed to (load|start) Boot`, true},
	{"firmware refuses an image", `Security Violation|Access Denied`, false},
	{"boot loader error", `(?i)error (loading|starting|preparing|registering|reading) .*(initrd|kernel|image|linux|\.efi)|boot image .* invalid`, true},

	{"kernel panic", `Kernel panic - not syncing`, true},
	{"kernel oops", `\bOops\b: |kernel BUG at|BUG: (unable to handle|kernel|sleeping|scheduling|workqueue|Bad page)|general protection fault|double fault`, false},
	{"kernel warning", `WARNING: (CPU|possible)|Call Trace:`, false},
	{"kernel stall", `detected (expedited )?stalls|self-detected stall|soft lockup|hard LOCKUP|blocked for more than \d+ seconds`, false},
	{"out of memory", `Out of memory:|oom-kill:|invoked oom-killer|oom_reaper:`, false},
	{"process crash", `\bsegfault at |traps: .* trap |\bdumped core\b|code=dumped|Caught <(SEGV|ABRT|BUS|FPE|ILL)>`, false},
	{"verity corruption", `device-mapper: verity: .*(corrupt|[Ee]rror|failed)`, false},
	{"disk error", `I/O error|critical (medium|target) error|EXT4-fs (error|warning)|EXT4-fs \(.*\): (error|.*with errors)|JBD2: .*[Ee]rror|erofs.*(corrupt|[Ee]rror|failed)|FAT-fs .*([Ee]rror|not properly unmounted)`, false},
	{"module missing", `modprobe: FATAL|Failed to find module|Unknown symbol .* in module|disagrees about version of symbol`, false},

	{"no root file system", `VFS: Cannot open root device|VFS: Unable to mount root|Gave up waiting for root|^\(initramfs\)`, true},
	{"emergency shell", `You are in emergency mode|Cannot open access to console|Press Enter for maintenance|Reached target emergency|Entering emergency mode|Started emergency\.service|this image cannot boot`, true},
	{"systemd froze", `Freezing execution|Failed to (execute|isolate) default target|Failed to allocate manager`, true},
	{"ordering cycle", `[Oo]rdering cycle|Job .* deleted to break`, false},
	{"unit failed", `\[\s*FAILED\s*\]|Failed to start |Failed to (mount|listen on|activate|set up) |Failed with result|entered failed state`, false},
	{"dependency failed", `\[\s*DEPEND\s*\]|Dependency failed for `, false},
	{"unit timed out", `\[\s*TIME\s*\]|Timed out (waiting for device|starting|mounting)|start operation timed out`, false},
	{"unit restarts in a loop", `Start request repeated too quickly`, false},
	{"systemd error", `systemd(-[a-z]+)?\[\d+\]: .*(Failed to|Assertion .* failed|Unknown (key|section|lvalue))`, false},
	{"ignition failed", `[Ii]gnition failed|ignition\[\d+\]: (CRITICAL|ERROR)`, false},

	{"Go panic", `(^|\]: )(panic: |fatal error: |goroutine \d+ \[)`, false},
}

// Rules returns the built-in rules.
func Rules() []Rule { return append([]Rule(nil), rules...) }

// Denylist judges console lines.
type Denylist struct {
	rules []Rule
	deny  []*regexp.Regexp
	allow []*regexp.Regexp
}

// NewDenylist compiles rules and their exceptions. An exception without a
// reason is an error.
func NewDenylist(rules []Rule, allow []Allowed) (*Denylist, error) {
	d := &Denylist{rules: rules}
	for _, r := range rules {
		re, err := regexp.Compile(r.Pattern)
		if err != nil {
			return nil, fmt.Errorf("reading console rule %q: %w", r.Name, err)
		}
		d.deny = append(d.deny, re)
	}
	for _, a := range allow {
		if a.Why == "" {
			return nil, fmt.Errorf("reading console exception %q: it gives no reason", a.Pattern)
		}
		re, err := regexp.Compile(a.Pattern)
		if err != nil {
			return nil, fmt.Errorf("reading console exception %q: %w", a.Pattern, err)
		}
		d.allow = append(d.allow, re)
	}
	return d, nil
}

// Scan returns the first rule that line breaks, if it breaks one.
func (d *Denylist) Scan(line string) (Rule, bool) {
	for i, re := range d.deny {
		if re.MatchString(line) && !d.allowed(line) {
			return d.rules[i], true
		}
	}
	return Rule{}, false
}

func (d *Denylist) allowed(line string) bool {
	for _, re := range d.allow {
		if re.MatchString(line) {
			return true
		}
	}
	return false
}

// ScanAll returns what is wrong with a console.
func (d *Denylist) ScanAll(lines []Line) []Finding {
	var out []Finding
	for _, l := range lines {
		if r, bad := d.Scan(l.Text); bad {
			out = append(out, Finding{l, r})
		}
	}
	return out
}
