package etcd

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kscratch/kscratch/cmd/internal/formation"
	"github.com/kscratch/kscratch/cmd/internal/memberapi"
	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/atomicfile"
	"github.com/kscratch/kscratch/ignition/firstboot"
)

// startEtcd gives the kubelet the pod of etcd, with what this member is to be.
// A pod that is the same goes on.
func (a *agent) startEtcd() error {
	b, err := a.root.ReadFile(firstboot.EtcdPodPath)
	if err != nil {
		return fmt.Errorf("reading the pod of etcd: %w", err)
	}
	pod, err := withEnv(b, environment(a.self, a.disk.saved().Member))
	if err != nil {
		return fmt.Errorf("reading the pod of etcd, /%s: %w", firstboot.EtcdPodPath, err)
	}
	if now, err := a.root.ReadFile(firstboot.EtcdManifestPath); err == nil && string(now) == string(pod) {
		return nil
	}
	a.Log.Info("starting etcd", "name", a.self.Name, "state", clusterState(a.disk.saved().Member))
	return atomicfile.Write(a.root, firstboot.EtcdManifestPath, pod, 0o600)
}

// stopEtcd takes the pod away from the kubelet.
func (a *agent) stopEtcd() error {
	if _, err := a.root.Lstat(firstboot.EtcdManifestPath); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	a.Log.Info("stopping etcd", "name", a.self.Name)
	return atomicfile.Remove(a.root, firstboot.EtcdManifestPath)
}

func clusterState(s formation.State) string {
	if s.Existing() {
		return "existing"
	}
	return "new"
}

// environment returns the flags of etcd that are this member's own, as it
// takes them from its environment: there a patch of the user's that wraps the
// command does not lose them. A member with data looks at the last two no more.
func environment(m firstboot.EtcdMember, s formation.State) []corev1.EnvVar {
	address := m.Address.String()
	client, peer := memberapi.URL(address, memberapi.ClientPort), memberapi.URL(address, memberapi.PeerPort)
	env := []corev1.EnvVar{
		{Name: "ETCD_NAME", Value: m.Name},
		{Name: "ETCD_LISTEN_CLIENT_URLS", Value: memberapi.URL("127.0.0.1", memberapi.ClientPort) + "," + client},
		{Name: "ETCD_ADVERTISE_CLIENT_URLS", Value: client},
		{Name: "ETCD_LISTEN_PEER_URLS", Value: peer},
		{Name: "ETCD_INITIAL_ADVERTISE_PEER_URLS", Value: peer},
		{Name: "ETCD_INITIAL_CLUSTER_STATE", Value: clusterState(s)},
	}
	if s.Record != nil {
		env = append(env, corev1.EnvVar{Name: "ETCD_INITIAL_CLUSTER_TOKEN", Value: s.Record.ID()})
	}
	return env
}

// withEnv returns a pod's YAML with variables added to its first container.
func withEnv(manifest []byte, env []corev1.EnvVar) ([]byte, error) {
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict(manifest, &pod); err != nil {
		return nil, err
	}
	if len(pod.Spec.Containers) == 0 {
		return nil, errors.New("it has no container")
	}
	c := &pod.Spec.Containers[0]
	c.Env = slices.Concat(c.Env, env)
	return yaml.Marshal(pod)
}
