package ignition

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kscratch/kscratch/ignition/pki"
)

// certificateRoles is where Kubernetes' built-in roles on signing requests are.
const certificateRoles = "system:certificates.k8s.io:certificatesigningrequests:"

// bootstrap puts objects into the cluster that nodes cannot join without, and
// whatever else lies in the directory. The order of the files is the order of
// the objects.
func bootstrap(n Node) (part, error) {
	objects, err := manifestOf(
		// Since 1.32 the node authorizer shows a node itself alone, and the pod
		// network needs to know the others.
		peersRole(), binding(peersName, peersName, rbacv1.GroupKind, "system:nodes"),
		approverRole(), binding(pki.Approver, pki.Approver, rbacv1.UserKind, pki.Approver),
		binding("kscratch:node-bootstrapper", "system:node-bootstrapper", rbacv1.GroupKind, pki.BootstrapGroup),
		binding("kscratch:approve-new-nodes", certificateRoles+"nodeclient", rbacv1.GroupKind, pki.BootstrapGroup),
		binding("kscratch:approve-renewals", certificateRoles+"selfnodeclient", rbacv1.GroupKind, "system:nodes"),
		binding("kscratch:apiserver-to-kubelets", "system:kubelet-api-admin", rbacv1.UserKind, pki.KubeletClient),
	)
	if err != nil {
		return part{}, err
	}
	return n.onMaster(part{
		files: []file{{bootstrapDir + "/10-rbac.yaml", 0o644, objects}},
		units: []unit{bootstrapUnit(n)},
	}), nil
}

const peersName = "kscratch:nodes-see-nodes"

func peersRole() rbacv1.ClusterRole {
	return clusterRole(peersName, rule("", "nodes", "get", "list", "watch"))
}

// approverRole lets kscratch-node approve certificates for kubelets to serve
// with, and look at what it needs to know for that.
func approverRole() rbacv1.ClusterRole {
	const group = "certificates.k8s.io"
	approve := rule(group, "signers", "approve")
	approve.ResourceNames = []string{"kubernetes.io/kubelet-serving"}
	return clusterRole(pki.Approver,
		rule("", "nodes", "get", "list", "watch"),
		rule(group, "certificatesigningrequests", "get", "list", "watch"),
		rule(group, "certificatesigningrequests/approval", "update"),
		approve,
	)
}

func rule(group, resource string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: verbs}
}

func clusterRole(name string, rules ...rbacv1.PolicyRule) rbacv1.ClusterRole {
	return rbacv1.ClusterRole{
		TypeMeta: kind(rbacv1.SchemeGroupVersion.String(), "ClusterRole"), ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules,
	}
}

func binding(name, role, kind, subject string) rbacv1.ClusterRoleBinding {
	return rbacv1.ClusterRoleBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRoleBinding"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: kind, Name: subject}},
	}
}

// manifestOf writes objects as one YAML stream.
func manifestOf(objects ...any) ([]byte, error) {
	var out [][]byte
	for _, o := range objects {
		b, err := object(o)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return bytes.Join(out, []byte("---\n")), nil
}

// bootstrapUnit applies the objects on every boot, so that a new image's take
// the place of the old one's.
//
// Until the bindings are there the kubelet's request for a certificate is
// turned down, and after five tries it waits 32 seconds for each further one.
// A restart makes it try at once; pods are not touched by it.
func bootstrapUnit(n Node) unit {
	const apply = "/usr/bin/kubectl apply --server-side --force-conflicts --field-manager=kscratch --cache-dir=/run/kscratch/kubectl --filename="
	port := strconv.Itoa(n.ControlPlane.Port)
	retry := []string{}
	if !n.anonymous() {
		retry = append(retry, fmt.Sprintf("ExecStart=-/usr/bin/bash -c 'test -e %s || systemctl --no-block try-restart kubelet.service'",
			n.Kubelet.RootDir+"/pki/kubelet-client-current.pem"))
	}
	lines := slices.Concat([]string{
		"[Unit]",
		"Description=First objects of the cluster",
		"Wants=kubelet.service",
		"After=kubelet.service",
		"StartLimitIntervalSec=0",
		"[Service]",
		"Type=oneshot",
		"RemainAfterExit=yes",
		"Environment=KUBECONFIG=" + etcKubernetes + "admin.kubeconfig",
		// Cheaper than to start kubectl over and over on a machine that is busy booting.
		fmt.Sprintf("ExecStartPre=/usr/bin/bash -c 'until : 2>/dev/null </dev/tcp/%s/%s; do sleep 0.5; done'", host, port),
		"ExecStart=" + apply + bootstrapDir + "/10-rbac.yaml",
	}, retry, []string{
		"ExecStart=" + apply + bootstrapDir,
		"TimeoutStartSec=infinity",
		"Restart=on-failure",
		"RestartMode=direct",
		"RestartSec=2",
		"[Install]",
		"WantedBy=multi-user.target",
	})
	return unit{name: "kscratch-bootstrap.service", enabled: true, contents: ini(lines...)}
}
