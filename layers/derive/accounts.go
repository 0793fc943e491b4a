package derive

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kscratch/kscratch/layers"
)

var stepAccounts = Step{
	Name: "accounts",
	Doc:  "passwd, group, shadow and gshadow from base-passwd's masters, sysusers.d and the group docker; no account has a password",
	Run:  accounts,
}

const nologin = "/usr/sbin/nologin"

type user struct {
	name, gecos, home, shell string
	uid, gid                 uint32
	master                   bool // from base-passwd
	expired                  bool
}

type group struct {
	name    string
	gid     uint32
	members []string
}

// accountDB is /etc/passwd and /etc/group under construction.
type accountDB struct {
	users  []user
	groups []group
	next   uint32 // where the search for a free system id goes on, downwards
}

// pinned are the ids of accounts whose id Debian leaves to the installation.
// They are fixed here so that the owners of files on the state partition stay
// the same whichever packages a later image has. A name that is not listed
// gets the next free id below them; never change or reuse a number.
var pinned = map[string]uint32{
	"systemd-journal": 999, "systemd-network": 998, "systemd-resolve": 997, "systemd-timesync": 996,
	"messagebus": 995, "input": 994, "sgx": 993, "clock": 992, "kvm": 991, "render": 990,
	"docker": 989, "systemd-coredump": 988, "systemd-oom": 987, "polkitd": 986, "sshd": 985,
	"_ssh": 984, "tss": 983, "etcd": 982, "_chrony": 981, "uuidd": 980, "netdev": 979,
	"systemd-journal-remote": 978, "systemd-bus-proxy": 977,
}

const firstDynamic = 969 // below the pinned ids, with room for more of them

func accounts(_ context.Context, in Input) (Result, error) {
	if !in.has("usr/share/base-passwd/passwd.master") {
		return Result{}, nil
	}
	db, err := in.masters()
	if err != nil {
		return Result{}, err
	}
	items, err := in.sysusers()
	if err != nil {
		return Result{}, err
	}
	if in.has("usr/sbin/dockerd") { // docker.io postinst: addgroup --system docker
		items = append(items, sysusersItem{kind: 'g', name: "docker", id: "-"})
	}
	if err := db.add(items, pinned); err != nil {
		return Result{}, err
	}
	files := db.files(in.Time)
	files = append(files, in.unlessThere(file("etc/subuid", 0o644, ""), file("etc/subgid", 0o644, ""))...)
	return Result{Files: files}, nil
}

// masters reads base-passwd's initial accounts.
func (in Input) masters() (*accountDB, error) {
	db := &accountDB{next: firstDynamic}
	for _, m := range []struct {
		path   string
		fields int
		add    func(f []string) error
	}{
		{"usr/share/base-passwd/passwd.master", 7, db.masterUser},
		{"usr/share/base-passwd/group.master", 4, db.masterGroup},
	} {
		b, err := in.Tree.ReadFile(m.path)
		if err != nil {
			return nil, err
		}
		for i, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
			f := strings.Split(line, ":")
			if len(f) != m.fields {
				return nil, fmt.Errorf("reading /%s:%d: %d fields, want %d", m.path, i+1, len(f), m.fields)
			}
			if err := m.add(f); err != nil {
				return nil, fmt.Errorf("reading /%s:%d: %w", m.path, i+1, err)
			}
		}
	}
	return db, nil
}

func (db *accountDB) masterUser(f []string) error {
	uid, err := parseID(f[2])
	if err != nil {
		return err
	}
	gid, err := parseID(f[3])
	db.users = append(db.users, user{name: f[0], uid: uid, gid: gid, gecos: f[4], home: f[5], shell: f[6], master: true})
	return err
}

func (db *accountDB) masterGroup(f []string) error {
	gid, err := parseID(f[2])
	db.groups = append(db.groups, group{name: f[0], gid: gid})
	return err
}

// sysusers reads all of sysusers.d, in the order of its file names.
func (in Input) sysusers() ([]sysusersItem, error) {
	files, err := in.confs(".conf", "etc/sysusers.d", "usr/local/lib/sysusers.d", "usr/lib/sysusers.d")
	if err != nil {
		return nil, err
	}
	var all []sysusersItem
	for _, f := range files {
		b, err := f.Read()
		if err != nil {
			return nil, err
		}
		items, err := parseSysusers("/"+f.Path, b)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
	}
	return all, nil
}

// add creates what items ask for, as systemd-sysusers does: what exists by
// name stays; groups come before users; an id that is taken, or "-", means
// the next free one. Ids in pins are preferred for "-".
func (db *accountDB) add(items []sysusersItem, pins map[string]uint32) error {
	if slices.ContainsFunc(items, func(it sysusersItem) bool { return it.kind == 'r' }) {
		return fmt.Errorf("sysusers.d ranges (type r) are not supported")
	}
	items = withImplied(items)
	for _, kind := range []byte("gum") {
		for _, it := range items {
			if it.kind != kind {
				continue
			}
			var err error
			switch kind {
			case 'g':
				err = db.addGroup(it.name, it.id, pins)
			case 'u':
				err = db.addUser(it, pins)
			case 'm':
				err = db.join(it.name, it.id)
			}
			if err != nil {
				return fmt.Errorf("adding %c %s: %w", it.kind, it.name, err)
			}
		}
	}
	slices.SortStableFunc(db.users, func(a, b user) int { return byMaster(a.master, b.master, a.name, b.name) })
	return nil
}

// byMaster puts base-passwd's accounts first, as they come, and the rest after
// them by name.
func byMaster(a, b bool, x, y string) int {
	switch {
	case a && b:
		return 0
	case a:
		return -1
	case b:
		return 1
	}
	return strings.Compare(x, y)
}

// withImplied adds the users and groups that m lines need.
func withImplied(items []sysusersItem) []sysusersItem {
	out := slices.Clone(items)
	for _, it := range items {
		if it.kind == 'm' {
			out = append(out, sysusersItem{kind: 'u', name: it.name, id: "-"}, sysusersItem{kind: 'g', name: it.id, id: "-"})
		}
	}
	return out
}

func (db *accountDB) group(name string) *group {
	if i := slices.IndexFunc(db.groups, func(g group) bool { return g.name == name }); i >= 0 {
		return &db.groups[i]
	}
	return nil
}

func (db *accountDB) user(name string) *user {
	if i := slices.IndexFunc(db.users, func(u user) bool { return u.name == name }); i >= 0 {
		return &db.users[i]
	}
	return nil
}

func (db *accountDB) uidTaken(id uint32) bool {
	return slices.ContainsFunc(db.users, func(u user) bool { return u.uid == id })
}

func (db *accountDB) gidTaken(id uint32) bool {
	return slices.ContainsFunc(db.groups, func(g group) bool { return g.gid == id })
}

// foreignGID reports whether id is that of a group with another name. Such an
// id is not given to a user, so that a user and a group of one number belong
// together.
func (db *accountDB) foreignGID(id uint32, name string) bool {
	return slices.ContainsFunc(db.groups, func(g group) bool { return g.gid == id && g.name != name })
}

// free returns the preferred id, or else the next id that neither a user nor
// a group has.
func (db *accountDB) free(name string, pins map[string]uint32) (uint32, error) {
	if id, ok := pins[name]; ok && !db.uidTaken(id) && !db.gidTaken(id) {
		return id, nil
	}
	for ; db.next >= 100; db.next-- {
		if !db.uidTaken(db.next) && !db.gidTaken(db.next) {
			db.next--
			return db.next + 1, nil
		}
	}
	return 0, fmt.Errorf("no system id is free")
}

func (db *accountDB) addGroup(name, id string, pins map[string]uint32) error {
	if db.group(name) != nil {
		return nil
	}
	gid, err := db.explicit(id, db.gidTaken)
	if err == nil && gid == nil {
		var n uint32
		n, err = db.free(name, pins)
		gid = &n
	}
	if err != nil {
		return err
	}
	db.groups = append(db.groups, group{name: name, gid: *gid})
	return nil
}

// explicit returns the id that s asks for, or nil if it leaves the choice or
// the id is taken.
func (db *accountDB) explicit(s string, taken func(uint32) bool) (*uint32, error) {
	if s == "-" {
		return nil, nil
	}
	id, err := parseID(s)
	if err != nil || taken(id) {
		return nil, err
	}
	return &id, nil
}

func (db *accountDB) addUser(it sysusersItem, pins map[string]uint32) error {
	if db.user(it.name) != nil {
		return nil
	}
	id, grp, hasGroup := strings.Cut(it.id, ":")
	uid, err := db.explicit(id, db.uidTaken)
	if err != nil {
		return err
	}
	gid, err := db.primary(it.name, id, grp, hasGroup, pins)
	if err != nil {
		return err
	}
	if uid == nil && !db.uidTaken(gid) && !db.foreignGID(gid, it.name) {
		uid = &gid
	}
	if uid == nil {
		n, err := db.free(it.name, pins)
		if err != nil {
			return err
		}
		uid = &n
	}
	db.users = append(db.users, newUser(it, *uid, gid))
	return nil
}

func newUser(it sysusersItem, uid, gid uint32) user {
	u := user{name: it.name, uid: uid, gid: gid, gecos: it.gecos, home: it.home, shell: it.shell, expired: it.locked}
	if u.home == "" {
		u.home = "/"
	}
	if u.shell == "" {
		u.shell = nologin
	}
	return u
}

// primary returns the primary group of a new user: the one that its line
// names, or the group of its own name, made if need be with the user's id.
func (db *accountDB) primary(name, id, grp string, given bool, pins map[string]uint32) (uint32, error) {
	if given && !validName(grp) {
		return parseID(grp)
	}
	if given {
		if g := db.group(grp); g != nil {
			return g.gid, nil
		}
		return 0, fmt.Errorf("group %q is not there", grp)
	}
	if err := db.addGroup(name, id, pins); err != nil {
		return 0, err
	}
	return db.group(name).gid, nil
}

func (db *accountDB) join(name, grp string) error {
	g := db.group(grp)
	if !slices.Contains(g.members, name) {
		g.members = append(g.members, name)
		slices.Sort(g.members)
	}
	return nil
}

// files renders the four databases. Passwords are "*" for base-passwd's
// accounts, as pwconv leaves them, and "!*" for the others, as
// systemd-sysusers writes them; no login with a password succeeds.
func (db *accountDB) files(t time.Time) []layers.File {
	day := max(t.Unix()/86400, 1)
	var passwd, shadow, grp, gshadow bytes.Buffer
	for _, u := range db.users {
		fmt.Fprintf(&passwd, "%s:x:%d:%d:%s:%s:%s\n", u.name, u.uid, u.gid, u.gecos, u.home, u.shell)
		switch {
		case u.master:
			fmt.Fprintf(&shadow, "%s:*:%d:0:99999:7:::\n", u.name, day)
		case u.expired:
			fmt.Fprintf(&shadow, "%s:!*:%d:::::1:\n", u.name, day)
		default:
			fmt.Fprintf(&shadow, "%s:!*:%d::::::\n", u.name, day)
		}
	}
	for _, g := range db.groups {
		m := strings.Join(g.members, ",")
		fmt.Fprintf(&grp, "%s:x:%d:%s\n", g.name, g.gid, m)
		fmt.Fprintf(&gshadow, "%s:*::%s\n", g.name, m)
	}
	var shadowGID uint32
	if g := db.group("shadow"); g != nil {
		shadowGID = g.gid
	}
	return []layers.File{
		file("etc/passwd", 0o644, passwd.String()),
		file("etc/group", 0o644, grp.String()),
		owned(file("etc/shadow", 0o640, shadow.String()), 0, shadowGID),
		owned(file("etc/gshadow", 0o640, gshadow.String()), 0, shadowGID),
	}
}

// idsOf returns the numeric owner and group for names, out of the tree's
// /etc/passwd and /etc/group.
func (in Input) idsOf(owner, grp string) (uid, gid uint32, err error) {
	if uid, err = in.id("etc/passwd", owner); err != nil {
		return 0, 0, err
	}
	gid, err = in.id("etc/group", grp)
	return uid, gid, err
}

func (in Input) id(db, name string) (uint32, error) {
	b, err := in.Tree.ReadFile(db)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(line, ":"); len(f) > 3 && f[0] == name {
			return parseID(f[2])
		}
	}
	return 0, fmt.Errorf("looking up %q: not in /%s", name, db)
}
