package vm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// pollTime is the time between two looks at the API.
const pollTime = 500 * time.Millisecond

// Ready says how a machine became a node.
type Ready struct {
	Node
	APIAfter time.Duration // power-on to /readyz saying ok
	After    time.Duration // power-on to the node's Ready condition
}

// WaitReady polls the API of the machine until one of its nodes is Ready. It
// fails when ctx ends, when the machine does, or when the console says that it
// cannot come up; the error then carries the last answer of the API and the
// tail of the console. Nothing is sent beyond the loopback address of api.
func (v *VM) WaitReady(ctx context.Context, api *API) (Ready, error) {
	deny, err := NewDenylist(fatalRules(), nil)
	if err != nil {
		return Ready{}, fmt.Errorf("internal error: %w", err)
	}
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	var r Ready
	last := errors.New("the API was not asked yet")
	for seen := 0; ; {
		lines, next, _, _ := v.console.since(seen)
		seen = next
		if bad := deny.ScanAll(lines); len(bad) > 0 {
			return r, v.notReady(errors.New(bad[0].String()), last)
		}
		err := v.poll(ctx, api, &r)
		if err == nil {
			return r, nil
		}
		if ctx.Err() == nil { // else err says only that, and last is the better answer
			last = err
		}
		select {
		case <-ctx.Done():
			return r, v.notReady(ctx.Err(), last)
		case <-v.done:
			return r, v.notReady(errors.New("the machine went off"), last)
		case <-tick.C:
		}
	}
}

// poll looks once; nil means that a node is Ready, as r then says.
func (v *VM) poll(ctx context.Context, api *API, r *Ready) error {
	if r.APIAfter == 0 {
		if _, err := api.Get(ctx, "/readyz"); err != nil {
			return err
		}
		r.APIAfter = v.Elapsed()
	}
	nodes, err := api.Nodes(ctx)
	if err != nil {
		return err
	}
	var not []string
	for _, n := range nodes {
		if n.Ready {
			r.Node, r.After = n, v.Elapsed()
			return nil
		}
		not = append(not, n.Name+" is not Ready: "+n.Why)
	}
	if len(not) == 0 {
		return errors.New("no node has registered")
	}
	return errors.New(strings.Join(not, "; "))
}

func (v *VM) notReady(why, last error) error {
	return fmt.Errorf("waiting for a Ready node, %.0f s after power-on: %w; API: %w; console:\n%s",
		v.Elapsed().Seconds(), why, last, v.console.Tail(tailLines))
}

func fatalRules() []Rule {
	var out []Rule
	for _, r := range rules {
		if r.Fatal {
			out = append(out, r)
		}
	}
	return out
}
