package etcd

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// memberList is etcd's answer about members: one that runs, one that has been in from
// the beginning but has not run yet, and one that was added since.
const memberList = `{"header":{"cluster_id":"18276745000000000001"},"members":[
 {"ID":"10276657743932975437","name":"a","peerURLs":["https://192.0.2.1:2380"],"clientURLs":["https://192.0.2.1:2379"]},
 {"ID":"2","name":"b","peerURLs":["https://192.0.2.2:2380"]},
 {"ID":"3","peerURLs":["https://192.0.2.3:2380"],"isLearner":false}]}`

// answering is a gateway to an etcd with these answers.
func answering(t testing.TB, members, kv string) *gateway {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v3/cluster/member/list", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, members) })
	mux.HandleFunc("POST /v3/kv/range", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, kv) })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return &gateway{s.URL, s.Client()}
}

func TestSeat(t *testing.T) {
	const nobody, claimed = `{"header":{}}`, `{"kvs":[{"key":"eA==","value":"bm9uY2U="}],"count":"1"}`
	for _, c := range []struct{ name, list, kv, peer, want string }{
		{"runs", memberList, nobody, "1", "known 10276657743932975437 published"},
		{"has not run", memberList, nobody, "2", "known 2"},
		{"added", memberList, nobody, "3", "known 3 added"},
		{"added and claimed", memberList, claimed, "3", "known 3 added by nonce"},
		{"not listed", memberList, nobody, "4", "known 0"},
		{"nothing", "{}", nobody, "1", "error etcd lists no members"},
		{"no JSON", "x", nobody, "1", "error asking etcd: reading the answer of "},
		{"no number", `{"members":[{"ID":"x","name":"a","peerURLs":["https://192.0.2.1:2380"]}]}`, nobody, "1", "error reading etcd's members: "},
		{"claim is no base64", memberList, `{"kvs":[{"value":"%"}]}`, "3", "error asking etcd: reading"},
	} {
		s, err := answering(t, c.list, c.kv).seat(t.Context(), "https://192.0.2."+c.peer+":2380")
		got := ""
		switch {
		case err != nil:
			got = "error " + err.Error()
		default:
			for _, w := range []struct {
				is   bool
				word string
			}{{s.Known, "known"}, {true, fmt.Sprint(s.ID)}, {s.Added, "added"}, {s.Published, "published"}, {s.Claim != "", "by " + s.Claim}} {
				if w.is {
					got += " " + w.word
				}
			}
		}
		if !strings.HasPrefix(strings.TrimSpace(got), c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
