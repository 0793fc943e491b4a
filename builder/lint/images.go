package lint

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kscratch/kscratch/images"
	"github.com/kscratch/kscratch/layers"
)

// baked finds the image that docker would take for a reference, which is
// name:tag, name, or either with a digest after an @.
func (n *node) baked(ref string) (Image, bool) {
	name, digest, byDigest := strings.Cut(ref, "@")
	want, err := images.Familiar(name)
	if err != nil {
		return Image{}, false
	}
	i := slices.IndexFunc(n.Images, func(im Image) bool {
		if byDigest {
			d := layers.Digest(digest)
			return repository(im.Name) == repository(want) && (im.Digest == d || im.Index == d)
		}
		return im.Name == want
	})
	if i < 0 {
		return Image{}, false
	}
	return n.Images[i], true
}

// repository returns a name without its tag, which every familiar name has.
func repository(name string) string { return name[:max(strings.LastIndexByte(name, ':'), 0)] }

// notBaked says what is baked under almost that name.
func (n *node) notBaked(ref string) string {
	what := fmt.Sprintf("image %q is not baked", ref)
	want, err := images.Familiar(ref)
	if err != nil {
		return what
	}
	for _, im := range n.Images {
		if path.Base(repository(im.Name)) == path.Base(repository(want)) {
			return what + "; " + im.Name + " is"
		}
	}
	return what
}

func imageBaked(n *node) []Finding {
	const fix = "bake it with an entry of images in the cluster file, or name one that is baked"
	var out []Finding
	for i := range n.pods {
		p := &n.pods[i]
		for _, c := range p.containers() {
			_, ok := n.baked(c.Image)
			switch {
			case c.Image == "":
				out = append(out, Finding{Severity: Error, Where: c.where, What: "has no image", Fix: "name one"})
			case !ok && p.static:
				out = append(out, Finding{Severity: Error, Where: c.where, What: n.notBaked(c.Image), Fix: fix})
			case !ok:
				out = append(out, Finding{Severity: Warning, Where: c.where, What: n.notBaked(c.Image) + ", so nodes will pull it", Fix: fix})
			}
		}
	}
	return out
}

// imagePull knows the policy that Kubernetes fills in: for the tag latest it is
// Always (SetDefaults_Container in pkg/apis/core/v1 of Kubernetes 1.36).
func imagePull(n *node) []Finding {
	var out []Finding
	for i := range n.pods {
		for _, c := range n.pods[i].containers() {
			im, ok := n.baked(c.Image)
			if !ok {
				continue
			}
			latest := c.ImagePullPolicy == "" && strings.HasSuffix(im.Name, ":latest") && !strings.Contains(c.Image, "@")
			if c.ImagePullPolicy == corev1.PullAlways || latest {
				out = append(out, Finding{Severity: Warning, Where: c.where,
					What: fmt.Sprintf("image %q is baked, and yet pulled at each start", c.Image), Fix: "set imagePullPolicy: IfNotPresent"})
			}
		}
	}
	return out
}

func imagePause(n *node) []Finding {
	const unit = "cri-docker.service"
	flag, ok := n.units.flag(unit, "pod-infra-container-image")
	if !ok {
		return nil
	}
	where := n.Files.where(etcUnits + unit)
	if _, ok := n.baked(flag); !ok {
		return found(Error, where, "--pod-infra-container-image: "+n.notBaked(flag), "name a baked image, which components.pause does")
	}
	if own, ok := n.units.flag("kubelet.service", "pod-infra-container-image"); ok && own != flag {
		return found(Error, n.Files.where(etcUnits+"kubelet.service"),
			fmt.Sprintf("--pod-infra-container-image is %s, and that of cri-dockerd %s", own, flag), "leave out the kubelet's")
	}
	return nil
}

func imagePlatform(n *node) []Finding {
	var out []Finding
	for _, im := range n.Images {
		if im.OS != "linux" || im.Arch != "amd64" {
			out = append(out, Finding{Severity: Error, Where: "image " + im.Name,
				What: fmt.Sprintf("is for %q/%q, and nodes are linux/amd64", im.OS, im.Arch), Fix: "bake the image for linux/amd64"})
		}
	}
	return out
}

func imageCommand(n *node) []Finding {
	var out []Finding
	for i := range n.pods {
		p := &n.pods[i]
		for _, c := range p.containers() {
			im, ok := n.baked(c.Image)
			if ok {
				out = append(out, n.command(p, c, im)...)
			}
		}
	}
	return out
}

// command judges the first word of what a container runs: the pod's command,
// else the image's entrypoint with the pod's arguments or its own.
func (n *node) command(p *pod, c container, im Image) []Finding {
	words := c.Command
	if len(words) == 0 {
		words = slices.Concat(im.Entrypoint, c.Args)
		if len(c.Args) == 0 {
			words = slices.Concat(im.Entrypoint, im.Cmd)
		}
	}
	if len(words) == 0 || words[0] == "" {
		return found(Error, c.where, "has no command, and neither has image "+im.Name, "set command")
	}
	if im.Programs == nil || strings.Contains(words[0], "$(") {
		return nil
	}
	dirs := strings.Split(searchPath(im.Env), ":")
	if strings.Contains(words[0], "/") {
		dirs = []string{"/"} // a relative one starts at the working directory, which is hardly ever another
	}
	for _, dir := range dirs {
		at := path.Join("/", dir, words[0])
		f, known := n.mounted(p, c, at)
		if !known {
			return nil
		}
		if f == nil {
			_, in, ok := im.Programs.find(at)
			f = &in
			if !ok {
				continue
			}
		}
		if f.Mode.IsRegular() && f.Mode&0o111 != 0 {
			return nil
		}
	}
	return found(Error, c.where, fmt.Sprintf("image %s has no program %s", im.Name, words[0]), "correct command, or bake an image that has it")
}

// mounted returns what a container sees at a path below one of its mounts.
// There is no file if there is no mount; it is not known if the volume is not a
// file of the root.
func (n *node) mounted(p *pod, c container, at string) (f *File, known bool) {
	for _, m := range c.VolumeMounts {
		rest, below := strings.CutPrefix(at, path.Clean(m.MountPath))
		if !below || rest != "" && rest[0] != '/' {
			continue
		}
		i := slices.IndexFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		if i < 0 || p.Spec.Volumes[i].HostPath == nil || m.SubPath != "" || m.SubPathExpr != "" {
			return nil, false
		}
		_, there, ok := n.Files.find(p.Spec.Volumes[i].HostPath.Path + rest)
		if !ok {
			there.Mode = fs.ModeIrregular
		}
		return &there, true
	}
	return nil, true
}

// searchPath is PATH of an image, or docker's own if it has none.
func searchPath(env []string) string {
	for _, e := range slices.Backward(env) {
		if p, ok := strings.CutPrefix(e, "PATH="); ok {
			return p
		}
	}
	return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}
