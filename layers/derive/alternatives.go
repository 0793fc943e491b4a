package derive

import (
	"context"
	"path"

	"github.com/kscratch/kscratch/layers"
)

var stepAlternatives = Step{
	Name: "alternatives",
	Doc:  "commands that update-alternatives would have linked to the provider of the highest priority",
	Run:  linkAlternatives,
}

// alternatives are the generic commands and who may provide them, best first
// by the priorities that the packages register. /usr/bin/sh is none by name,
// but dash and bash settle it the same way. The links point straight at the
// provider: /etc/alternatives serves administrators who change them, which
// an immutable root has no use for.
var alternatives = []struct {
	dir       string
	names     []string // master and slaves
	providers []string // see providerOf
}{
	{"usr/bin", []string{"sh"}, []string{"dash", "bash"}},
	{"usr/bin", []string{"awk", "nawk"}, []string{"gawk", "mawk", "original-awk"}},
	{"usr/bin", []string{"which"}, []string{"which.debianutils"}},
	{"usr/bin", []string{"mt"}, []string{"mt-gnu"}},
	{"usr/sbin", []string{"rmt"}, []string{"rmt-tar"}},
	{"usr/bin", []string{"nc", "netcat"}, []string{"nc.openbsd", "nc.traditional"}},
	{"usr/sbin", []string{"iptables", "iptables-restore", "iptables-save"}, []string{"iptables-nft*", "iptables-legacy*"}},
	{"usr/sbin", []string{"ip6tables", "ip6tables-restore", "ip6tables-save"}, []string{"ip6tables-nft*", "ip6tables-legacy*"}},
	{"usr/sbin", []string{"arptables", "arptables-restore", "arptables-save"}, []string{"arptables-nft*", "arptables-legacy*"}},
	{"usr/sbin", []string{"ebtables", "ebtables-restore", "ebtables-save"}, []string{"ebtables-nft*", "ebtables-legacy*"}},
}

func linkAlternatives(_ context.Context, in Input) (Result, error) {
	var files []layers.File
	for _, a := range alternatives {
		for _, p := range a.providers {
			if !in.has(path.Join(a.dir, providerOf(p, a.names[0], a.names[0]))) {
				continue
			}
			for _, n := range a.names {
				if target := providerOf(p, a.names[0], n); in.has(path.Join(a.dir, target)) {
					files = append(files, in.unlessThere(link(path.Join(a.dir, n), target))...)
				}
			}
			break
		}
	}
	return Result{Files: files}, nil
}

// providerOf returns what name is linked to. A provider "x-nft*" of master "x"
// brings slave "x-save" as "x-nft-save"; any other is one program for all.
func providerOf(provider, master, name string) string {
	if n := len(provider) - 1; provider[n] == '*' {
		return provider[:n] + name[len(master):]
	}
	return provider
}
