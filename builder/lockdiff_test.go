package builder_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kscratch/kscratch/builder"
)

func TestChanges(t *testing.T) {
	a := &builder.Lock{
		Suites:   []builder.LockedSuite{{Name: "trixie", Date: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}},
		Packages: []builder.LockedPackage{{Name: "bash", Version: "5.2"}, {Name: "dash", Version: "1"}, {Name: "tar", Version: "1.3", Digest: "sha256:a"}},
		Files:    []builder.LockedFile{{Name: "cri-dockerd", Version: "v1"}},
		Images:   []builder.LockedImage{{Name: "127.0.0.1:5000/etcd:3.6.1"}, {Name: "gone:1"}},
	}
	b := &builder.Lock{
		Suites:   []builder.LockedSuite{{Name: "trixie", Date: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)}},
		Packages: []builder.LockedPackage{{Name: "bash", Version: "5.3"}, {Name: "ed", Version: "2"}, {Name: "tar", Version: "1.3", Digest: "sha256:b"}},
		Files:    []builder.LockedFile{{Name: "cri-dockerd", Version: "v1"}},
		Images:   []builder.LockedImage{{Name: "127.0.0.1:5000/etcd:3.6.2"}},
	}
	want := []builder.LockChange{
		{"suite", "trixie", "2026-01-01 00:00:00", "2026-01-02 00:00:00"},
		{"package", "bash", "5.2", "5.3"},
		{"package", "dash", "1", ""},
		{"package", "ed", "", "2"},
		{"package", "tar", "sha256:a", "sha256:b"},
		{"image", "127.0.0.1:5000/etcd", "3.6.1", "3.6.2"},
		{"image", "gone", "1", ""},
	}
	if d := cmp.Diff(want, builder.Changes(a, b)); d != "" {
		t.Error(d)
	}
	if got := builder.Changes(a, a); len(got) > 0 {
		t.Errorf("a lock differs from itself: %v", got)
	}
}
