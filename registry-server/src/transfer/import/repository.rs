//! A repository of the old store: its manifests and tags as they are, and what can be taken.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read},
};

use berth_shared::{clock::UnixSeconds, digest::Digest, name::RepositoryName};

use super::layout::{About, Content, Fault, OldStore, TagLink};
use crate::{
    metadata::manifest::{Kind, Named, NewManifest},
    registry::{Limits, manifest_content::read_manifest},
};

/// A repository as the old store has it.
#[derive(Debug)]
pub(super) struct OldRepository {
    pub(super) name: RepositoryName,
    /// Those that are whole and can be read.
    pub(super) manifests: HashMap<Digest, NewManifest>,
    pub(super) tags: Vec<TagLink>,
    pub(super) faults: Vec<Fault>,
}

impl OldRepository {
    /// Reads the repository and checks every manifest against its digest.
    ///
    /// # Errors
    /// When the system does not let it be read.
    pub(super) fn read(
        store: &OldStore,
        name: &RepositoryName,
        limits: &Limits,
        now: UnixSeconds,
    ) -> io::Result<Self> {
        let mut faults = Vec::new();
        let revisions = store.revisions(name, &mut faults)?;
        let tags = store.tags(name, &mut faults)?;
        let mut manifests = HashMap::new();
        for digest in revisions {
            match store.blob(&digest)?.and_then(|content| read(content, &digest, limits, now)) {
                Ok(manifest) => drop(manifests.insert(digest, manifest)),
                Err(what) => faults.push(Fault {
                    place: OldStore::place_of(&digest),
                    what: format!("manifest {digest} {what}"),
                    about: About::Content(digest),
                }),
            }
        }
        let mut repository = Self { name: name.clone(), manifests, tags, faults };
        repository.find_missing();
        Ok(repository)
    }

    /// The blobs that the manifests name, each once, with the manifest that names it.
    pub(super) fn blobs(&self) -> HashMap<&Digest, &Named> {
        let named = self.manifests.values().flat_map(|it| &it.references);
        let blobs = named.filter(|named| is_blob(named));
        blobs.map(|named| (&named.digest, named)).collect()
    }

    /// Manifests that an index or a tag needs and that are not there.
    fn find_missing(&mut self) {
        let known: HashSet<&Digest> = self.faults.iter().filter_map(content).collect();
        let children = self.manifests.values().flat_map(|manifest| {
            let required = manifest.references.iter().filter(|it| it.required);
            required.filter(|it| it.kind == Kind::Child).map(|it| &it.digest)
        });
        let needed = children.chain(self.tags.iter().map(|tag| &tag.digest));
        let missing: HashSet<&Digest> =
            needed.filter(|it| !self.manifests.contains_key(*it) && !known.contains(it)).collect();
        let faults = missing.into_iter().map(|digest| Fault {
            place: format!("repositories/{}/_manifests/revisions", self.name),
            what: format!("manifest {digest} is missing"),
            about: About::Content(digest.clone()),
        });
        let mut faults: Vec<Fault> = faults.collect();
        faults.sort_by(|a, b| a.what.cmp(&b.what));
        self.faults.append(&mut faults);
    }

    /// Everything that needs `digest` in order to be whole, and the digest itself.
    pub(super) fn needing(&self, digest: &Digest) -> HashSet<Digest> {
        let mut needing = HashSet::from([digest.clone()]);
        let mut grown = true;
        while grown {
            grown = false;
            for (digest, manifest) in &self.manifests {
                let mut required = manifest.references.iter().filter(|named| named.required);
                if !needing.contains(digest) && required.any(|it| needing.contains(&it.digest)) {
                    grown = needing.insert(digest.clone());
                }
            }
        }
        needing
    }

    /// How a person names what a fault takes away: tags, or digests where no tag leads to them.
    pub(super) fn images(&self, about: &About, needing: &HashSet<Digest>) -> Vec<String> {
        if let About::Tag(tag) = about {
            return vec![format!("{}:{tag}", self.name)];
        }
        let tagged = self.tags.iter().filter(|tag| needing.contains(&tag.digest));
        let mut images: Vec<String> =
            tagged.map(|tag| format!("{}:{}", self.name, tag.tag)).collect();
        if images.is_empty() {
            let untagged = needing.iter().filter(|it| self.manifests.contains_key(*it));
            images.extend(untagged.map(|digest| format!("{}@{digest}", self.name)));
            images.sort();
        }
        images
    }

    /// The manifests that are not in `rejected`, each behind those that it names.
    pub(super) fn in_order(&mut self, rejected: &HashSet<Digest>) -> Vec<NewManifest> {
        self.manifests.retain(|digest, _| !rejected.contains(digest));
        let mut digests: Vec<Digest> = self.manifests.keys().cloned().collect();
        digests.sort();
        let mut ordered = Vec::with_capacity(digests.len());
        let mut waiting: Vec<(Digest, bool)> =
            digests.into_iter().rev().map(|digest| (digest, false)).collect();
        while let Some((digest, children_are_through)) = waiting.pop() {
            if children_are_through {
                ordered.extend(self.manifests.remove(&digest));
            } else if let Some(manifest) = self.manifests.get(&digest) {
                waiting.push((digest, true));
                let children = manifest.references.iter().filter(|it| it.kind == Kind::Child);
                waiting.extend(children.map(|named| (named.digest.clone(), false)));
            }
        }
        ordered
    }
}

/// Whether a manifest names it as bytes, and not as another manifest.
pub(super) fn is_blob(named: &Named) -> bool {
    matches!(named.kind, Kind::Config | Kind::Layer)
}

/// What the fault takes away by its digest.
pub(super) fn content(fault: &Fault) -> Option<&Digest> {
    match &fault.about {
        About::Content(digest) => Some(digest),
        About::Nothing | About::Tag(_) => None,
    }
}

/// Reads a manifest that has this digest, or says what is wrong with it.
fn read(
    content: Content,
    digest: &Digest,
    limits: &Limits,
    now: UnixSeconds,
) -> Result<NewManifest, String> {
    let bytes_max = limits.manifest_bytes_max as u64;
    if content.meta.len() > bytes_max {
        return Err(format!("is larger than {bytes_max} bytes"));
    }
    let mut bytes = Vec::new();
    let read = content.file.take(bytes_max).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot be read: {error}"))?;
    if digest.algorithm().digest(&bytes) != *digest {
        return Err("has other bytes than its digest says".to_owned());
    }
    let read = read_manifest(digest.clone(), None, bytes.into(), limits.sparse_manifests, now);
    read.map_err(|error| format!("cannot be taken: {error}"))
}
