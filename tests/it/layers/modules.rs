//! The modules of a crate, what each names of the others, and which file it is in.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::words::{without_tests, words};
use crate::sources::Source;

/// A path as it is written, or from the crate's root.
type Names = Vec<String>;

/// A module: one file.
#[derive(Debug, Default)]
struct Module {
    file: String,
    /// What a name stands for that is imported, and perhaps handed on.
    imports: BTreeMap<String, Names>,
    /// Every path that is written.
    named: BTreeSet<Names>,
}

/// The modules of a crate, by their paths from its root; those for tests alone are not among them.
#[derive(Debug)]
pub(super) struct Modules(BTreeMap<Names, Module>);

/// One module names what is in another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Arrow {
    /// The file that names.
    pub(super) from: String,
    /// Its module's path, without the crate: `registry::upload`.
    pub(super) from_module: String,
    /// The file that is named.
    pub(super) to: String,
    /// Its module's path; nothing for the root's.
    pub(super) module: String,
    /// What is named of it; nothing where it is the module itself.
    pub(super) item: Option<String>,
    /// Whether a module names its own child.
    pub(super) is_to_own_child: bool,
}

impl fmt::Display for Arrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let item = self.item.as_deref().unwrap_or("itself");
        write!(f, "{} -> {} ({item})", self.from, self.to)
    }
}

/// Where a path leads.
struct Place {
    module: Names,
    item: Option<String>,
}

/// How often an import may lead to another.
const DEPTH_MAX: usize = 16;

impl Modules {
    /// The modules of the crate whose root is the file `root`.
    pub(super) fn read(sources: &[Source], root: &str) -> Self {
        let folder = root.rsplit_once('/').map_or("", |(folder, _)| folder);
        // A program below the library's folder is a crate of its own.
        let mains = sources.iter().filter_map(|source| source.path.strip_suffix("/main.rs"));
        let others: Vec<&str> = mains.filter(|main| main.len() > folder.len()).collect();
        let mut modules = BTreeMap::new();
        let mut for_tests: Vec<Names> = Vec::new();
        for source in sources {
            let is_others = others.iter().any(|other| source.path.starts_with(other));
            let Some(path) = source.path.strip_prefix(folder).filter(|_| !is_others) else {
                continue;
            };
            let path = if source.path == root { Names::new() } else { module_path(path) };
            if source.path != root && matches!(path[..], [ref one] if one == "main" || one == "lib")
            {
                continue;
            }
            let (words, tests) = without_tests(&words(&source.text));
            for_tests.extend(tests.into_iter().map(|name| [path.clone(), vec![name]].concat()));
            let mut module = Module { file: source.path.clone(), ..Module::default() };
            module.take(&words);
            modules.insert(path, module);
        }
        modules.retain(|path, _| !for_tests.iter().any(|tests| path.starts_with(tests)));
        Self(modules)
    }

    /// What the modules name of each other.
    pub(super) fn arrows(&self) -> BTreeSet<Arrow> {
        let mut arrows = BTreeSet::new();
        for (path, module) in &self.0 {
            let places = module.named.iter().filter_map(|named| self.place(path, named, 0));
            for place in places.filter(|place| place.module != *path) {
                arrows.insert(Arrow {
                    from: module.file.clone(),
                    from_module: path.join("::"),
                    to: self.0[&place.module].file.clone(),
                    module: place.module.join("::"),
                    item: place.item,
                    is_to_own_child: place.module.split_last().is_some_and(|(_, it)| it == path),
                });
            }
        }
        arrows
    }

    /// What they name of other crates: the module's path, and what is named.
    pub(super) fn foreign(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().flat_map(|(path, module)| {
            let named = module.named.iter().filter(|named| self.place(path, named, 0).is_none());
            named.map(|named| (path.join("::"), named.join("::")))
        })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Their paths, without the crate.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.0.keys().map(|path| path.join("::"))
    }

    /// Where `names` lead that are written in `module`; `None` for what is not of the crate.
    fn place(&self, module: &Names, names: &[String], depth: usize) -> Option<Place> {
        let (mut at, mut rest) = (module.clone(), names);
        match names.first()?.as_str() {
            "crate" => (at, rest) = (Names::new(), &names[1..]),
            "self" => rest = &names[1..],
            "super" => {
                while let Some("super") = rest.first().map(String::as_str) {
                    at.pop()?;
                    rest = &rest[1..];
                }
            }
            first if !self.0.contains_key(&child(&at, first)) => {
                return self.imported(&at, names, depth);
            }
            _ => {}
        }
        while let Some(name) = rest.first() {
            let below = child(&at, name);
            if !self.0.contains_key(&below) {
                let handed_on = self.imported(&at, rest, depth);
                return handed_on.or(Some(Place { module: at, item: Some(name.clone()) }));
            }
            (at, rest) = (below, &rest[1..]);
        }
        Some(Place { module: at, item: None })
    }

    /// The same, where `names` begin with one that `module` imports.
    fn imported(&self, module: &Names, names: &[String], depth: usize) -> Option<Place> {
        let import = self.0.get(module)?.imports.get(&names[0]).filter(|_| depth < DEPTH_MAX)?;
        self.place(module, &[import, &names[1..]].concat(), depth + 1)
    }
}

/// The module whose file has this path from the root's folder.
fn module_path(path: &str) -> Names {
    let path = path.trim_start_matches('/').trim_end_matches(".rs");
    path.trim_end_matches("/mod").split('/').map(ToOwned::to_owned).collect()
}

fn child(module: &[String], name: &str) -> Names {
    [module, &[name.to_owned()]].concat()
}

impl Module {
    /// Notes imports and paths.
    fn take(&mut self, words: &[String]) {
        let mut at = 0;
        while at < words.len() {
            let is_import = words[at] == "use" && words.get(at + 1).is_some_and(|it| it != "<");
            at = if is_import {
                self.take_import(words, at + 1, &Names::new())
            } else {
                self.take_path(words, at)
            };
        }
    }

    /// Notes an import that goes on at `at` behind `before`, and says where it ends.
    fn take_import(&mut self, words: &[String], mut at: usize, before: &Names) -> usize {
        let mut path = before.clone();
        while let Some(word) = words.get(at) {
            match word.as_str() {
                "::" => at += 1,
                "{" => {
                    at += 1;
                    while words.get(at).is_some_and(|word| word != "}") {
                        at = self.take_import(words, at, &path);
                        at += usize::from(words.get(at).is_some_and(|word| word == ","));
                    }
                    return at + 1;
                }
                "," | "}" | ";" | "as" => break,
                "*" => {
                    self.named.insert(path);
                    return at + 1;
                }
                "self" if !path.is_empty() => at += 1,
                _ => {
                    path.push(word.clone());
                    at += 1;
                }
            }
        }
        let mut name = path.last().cloned();
        if words.get(at).is_some_and(|word| word == "as") {
            name = words.get(at + 1).cloned();
            at += 2;
        }
        // What is imported from outside by its own name alone leads nowhere.
        if let Some(name) = name.filter(|name| path[..] != [name.clone()]) {
            self.imports.insert(name, path.clone());
        }
        self.named.insert(path);
        at
    }

    /// Notes the path that begins at `at`, if one does, and says where it ends.
    fn take_path(&mut self, words: &[String], mut at: usize) -> usize {
        let mut path = vec![words[at].clone()];
        let is_word = |word: &String| word.starts_with(|it: char| it.is_alphabetic() || it == '_');
        while words.get(at + 1).is_some_and(|word| word == "::")
            && words.get(at + 2).is_some_and(is_word)
        {
            path.push(words[at + 2].clone());
            at += 2;
        }
        if path.len() > 1 && is_word(&path[0]) {
            self.named.insert(path);
        }
        at + 1
    }
}
