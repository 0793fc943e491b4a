package derive

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const mastersTree = `
	usr/share/base-passwd/passwd.master = root:*:0:0:root:/root:/bin/bash\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n
	usr/share/base-passwd/group.master = root:*:0:\nusers:*:100:\nnogroup:*:65534:\n`

// sysusersCases are also put before systemd-sysusers, see foreign_test.go.
var sysusersCases = []struct{ name, conf, want string }{
	{"groups before users, ids downwards", "u a -\ng z -\nu b - \"B b\" /b /bin/sh", `
		user a 998:998 "" / /usr/sbin/nologin
		user b 997:997 "B b" /b /bin/sh
		group a 998
		group b 997
		group z 999`},
	{"given ids", "u a 200\nu b 201:100\nu c 202:users\ng d 300\nu e -:users", `
		user a 200:200 "" / /usr/sbin/nologin
		user b 201:100 "" / /usr/sbin/nologin
		user c 202:100 "" / /usr/sbin/nologin
		user e 999:100 "" / /usr/sbin/nologin
		group a 200
		group d 300`},
	{"what is there stays", "u root 5\ng users 7\ng nogroup -", ``},
	{"a taken id is not given", "g taken 100\ng a 998\nu b -\nu c -", `
		user b 997:997 "" / /usr/sbin/nologin
		user c 996:996 "" / /usr/sbin/nologin
		group a 998
		group b 997
		group c 996
		group taken 999`},
	{"members", "m x users\nm root adm\nm x users", `
		user x 998:998 "" / /usr/sbin/nologin
		group adm 999 root
		group users 100 x
		group x 998`},
	{"user of a group in the queue", "g x 250\nu x -", `
		user x 250:250 "" / /usr/sbin/nologin
		group x 250`},
}

func TestSysusers(t *testing.T) {
	for _, tt := range sysusersCases {
		t.Run(tt.name, func(t *testing.T) {
			db := accountsOf(t, tt.conf)
			if got, want := db.list(), unindent(tt.want); got != want {
				t.Errorf("accounts:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func accountsOf(t *testing.T, conf string) *accountDB {
	t.Helper()
	db, err := Input{Tree: tree(t, mastersTree)}.masters()
	if err != nil {
		t.Fatal(err)
	}
	db.next = 999
	items, err := parseSysusers("test", []byte(conf))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.add(items, nil); err != nil {
		t.Fatal(err)
	}
	return db
}

// list shows what was added to base-passwd's accounts.
func (db *accountDB) list() string {
	var out []string
	for _, g := range db.groups {
		masters := []string{"root 0", "users 100", "nogroup 65534"}
		if s := strings.TrimSpace(fmt.Sprintf("%s %d %s", g.name, g.gid, strings.Join(g.members, ","))); !slices.Contains(masters, s) {
			out = append(out, "group "+s+"\n")
		}
	}
	for _, u := range db.users {
		if u.name != "root" && u.name != "nobody" {
			out = append(out, fmt.Sprintf("user %s %d:%d %q %s %s\n", u.name, u.uid, u.gid, u.gecos, u.home, u.shell))
		}
	}
	slices.SortFunc(out, func(a, b string) int { // users first, each by name
		return strings.Compare(strings.Replace(a, "user ", "a ", 1), strings.Replace(b, "user ", "a ", 1))
	})
	return strings.Join(out, "")
}

func TestPinnedIDsDiffer(t *testing.T) {
	seen := map[uint32]string{}
	for name, id := range pinned {
		if id <= firstDynamic || id > 999 || seen[id] != "" {
			t.Errorf("%s has %d, as has %q; want an id of its own above %d", name, id, seen[id], firstDynamic)
		}
		seen[id] = name
	}
}

func TestSystemIDsRunOut(t *testing.T) {
	var conf strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&conf, "g g%d -\n", i)
	}
	db := &accountDB{next: firstDynamic}
	items, err := parseSysusers("test", []byte(conf.String()))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.add(items, pinned); err == nil || !strings.Contains(err.Error(), "no system id is free") {
		t.Errorf("error %v", err)
	}
}

func TestParseSysusersRefuses(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"x y -", `type "x"`},
		{"g! y -", "the mark ! goes with u only"},
		{"u 1a -", "names of a user"},
		{"m a 1b", "names of a user"},
		{"u a - \"x", "quote is not closed"},
		{"u a - x:y", "colon"},
		{"u a - x / sh more", "7 fields"},
		{"u", "names of a user"},
	} {
		if _, err := parseSysusers("f", []byte("\n"+tt.line)); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "f:2") {
			t.Errorf("%q: error %v, want %q in it", tt.line, err, tt.want)
		}
	}
}

func FuzzSysusers(f *testing.F) {
	for _, tt := range sysusersCases {
		f.Add(tt.conf)
	}
	f.Add("u! a - 'x y' \"/a\\\"b\" /bin/sh")
	f.Fuzz(func(t *testing.T, conf string) {
		items, err := parseSysusers("f", []byte(conf))
		if err != nil || len(items) > 500 {
			return
		}
		db := &accountDB{next: firstDynamic}
		if db.add(items, pinned) != nil {
			return
		}
		uids := map[uint32]bool{}
		for _, u := range db.users {
			if uids[u.uid] || strings.ContainsAny(u.name+u.gecos+u.home+u.shell, ":\n") {
				t.Fatalf("user %+v", u)
			}
			uids[u.uid] = true
		}
	})
}
