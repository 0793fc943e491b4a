// Package images brings container images into the content store and lays them
// out, ready for docker, as ordinary files of the operating system's root.
//
// An [Image] is an immutable value named by digests. It comes from a registry
// ([Registry]), from a docker-archive or an OCI layout ([Importer.Load]), from
// a root file system's tar as `docker import` takes it ([Importer.RootFS]), or
// from files at hand ([Importer.Compose]). Every layer ends up in the content
// store as an uncompressed tar under its diff ID, whichever way it came, and is
// hashed on the way: an image never has content that its configuration does
// not name.
//
// [Store] lays images out as docker's own overlay2 image store; [WriteDockerArchive]
// writes them as a docker-archive. Package images/seed makes a docker on a node
// know a baked store.
//
// # What docker reads
//
// Docker 26.1 reads these files below its data root when it starts, and needs
// no more to list images and to run containers. Paths in parentheses are those of
// https://github.com/moby/moby/tree/v26.1.5.
//
//   - image/overlay2/imagedb/content/sha256/<image ID>: the configuration; its
//     hash must be its name (image/fs.go, image/store.go: restore). The files
//     below imagedb/metadata (parent, lastUpdated) are optional and not written:
//     they belong to images that docker built or tagged itself.
//   - image/overlay2/layerdb/sha256/<chain ID>/{diff,size,cache-id,parent}: one
//     layer (layer/filestore.go, layer/layer_store.go: loadLayer). A chain ID is
//     the diff ID of a bottom layer, otherwise the hash of the parent's chain
//     ID, a space and the diff ID (OCI image specification, "Layer ChainID").
//   - layerdb/…/tar-split.json.gz: not read at start or by containers, only
//     where docker makes the layer's tar again: save, push, build cache export
//     (layer/ro_layer.go: TarStream). It is written, so that these work.
//   - layerdb/…/descriptor.json and image/overlay2/distribution: they save
//     docker transfers when it pushes and pulls; not written.
//   - image/overlay2/repositories.json: names, in docker's familiar form, such
//     as "busybox:1" for docker.io/library/busybox:1 (reference/store.go).
//   - overlay2/<cache ID>/{diff,link,lower,committed} and overlay2/l/<link>
//     (daemon/graphdriver/overlay2/overlay.go). "committed" makes docker mount a
//     layer read-only; without it docker would use diff as an upper directory,
//     which a read-only root refuses. The links in overlay2/l are not baked, as
//     they follow from the link files.
//
// Cache IDs and link names are random in docker. Here they derive from the
// chain ID, so that a build repeats itself and an upgrade finds its own.
//
// # Not supported
//
// Platforms other than linux/amd64 unless asked for; manifests of schema 1;
// archives by docker before 1.10, which have no manifest.json; layers that
// docker refuses too (a path twice in one layer, more than 125 layers);
// sparse members, hard links to symbolic links, pax global headers; attributes
// that steer overlayfs; encrypted or foreign layers; signatures; tars of before
// POSIX. A hard link in a layer becomes a file of its own with the same
// content. Names of the form .wh..wh.*, which aufs kept for itself, are left
// out of what is baked.
package images
