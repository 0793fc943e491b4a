package memberapi

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/cmd/internal/formation"
)

// FuzzStatus: what passes the check may be reasoned with.
func FuzzStatus(f *testing.F) {
	n := strings.Repeat("0", 32)
	f.Add([]byte(`{"name":"a","nonce":"` + n + `","accepted":{"members":{"a":"` + n + `","b":"` + n + `","c":"` + n + `"}}}`))
	f.Add([]byte(`{"name":"b","data":true,"record":{"members":null},"held":"x"}`))
	members := []string{"a", "b", "c"}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Status
		if json.Unmarshal(b, &s) != nil || s.Check(members) != nil {
			return
		}
		for _, r := range []*formation.Record{s.Accepted, s.Record} {
			if r != nil && (len(r.Members) != 3 || len(r.ID()) != 64) {
				t.Fatalf("accepted %s", b)
			}
		}
		for _, self := range members {
			if self != s.Name {
				formation.Next(formation.State{Nonce: n}, formation.View{Self: self, Members: members, Heard: map[string]formation.Status{s.Name: s.Status}, Fresh: n})
			}
		}
	})
}
