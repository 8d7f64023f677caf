//! What may name what: no circles between the files of a crate, and in `registry-server` layers
//! that point down.

mod circles;
mod modules;
mod words;

use crate::sources::{Source, nothing, sources};
use modules::{Arrow, Modules};

/// The crates by their roots: a library and a program are two.
const CRATES: [&str; 5] = [
    "auth-server/src/lib.rs",
    "auth-server/src/bin/authctl/main.rs",
    REGISTRY,
    "registry-server/src/cli/main.rs",
    "shared/src/lib.rs",
];

const REGISTRY: &str = "registry-server/src/lib.rs";

/// The modules of `registry-server` from the lowest to the highest: each names those alone that
/// stand before it.
const LAYERS: [&str; 15] = [
    "storage",
    "reach",
    "metadata",
    "auth_client",
    "issuer",
    "authz",
    "registry",
    "maintenance",
    "metrics",
    "jobs",
    "http",
    "config",
    "data",
    "transfer",
    "server",
];

/// Those of them that speak HTTP, or which part of them does.
const SPEAK_HTTP: [&str; 6] = ["auth_client", "jobs", "http", "config", "server", "storage::s3"];

fn modules(root: &str) -> Modules {
    let package = root.split('/').next().unwrap_or_default();
    let modules = Modules::read(&sources(&[package]), root);
    assert!(modules.count() > 5, "the sources of {root} were not found");
    modules
}

#[test]
fn no_file_names_what_names_it() {
    let circles = CRATES.iter().flat_map(|root| circles::of_files(&modules(root).arrows()));
    nothing(&circles.collect::<Vec<_>>());
}

/// A module may name its own children, and so hide a circle that leads through another folder.
#[test]
fn no_folder_names_what_names_it() {
    let circles = CRATES.iter().flat_map(|root| circles::of_folders(&modules(root).arrows()));
    nothing(&circles.collect::<Vec<_>>());
}

#[test]
fn nothing_is_named_by_way_of_the_root() {
    let arrows = CRATES.iter().flat_map(|root| modules(root).arrows());
    let to_root = arrows.filter(|arrow| arrow.module.is_empty());
    nothing(&to_root.map(|arrow| arrow.to_string()).collect::<Vec<_>>());
}

/// The module below the root that `module` is in.
fn top(module: &str) -> &str {
    module.split("::").next().unwrap_or_default()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| *layer == top(module))
}

#[test]
fn layers_point_down() {
    let modules = modules(REGISTRY);
    let points_up = |arrow: &Arrow| {
        top(&arrow.from_module) != top(&arrow.module)
            && layer(&arrow.module) >= layer(&arrow.from_module)
    };
    // How rights are found is nothing to the domain.
    let is_beyond_permit = |arrow: &Arrow| {
        top(&arrow.from_module) == "registry"
            && top(&arrow.module) == "authz"
            && arrow.module != "authz::permit"
    };
    let arrows = modules.arrows();
    // The root has all of its modules below it.
    let between = arrows.iter().filter(|arrow| !arrow.from_module.is_empty());
    let wrong = between.filter(|arrow| points_up(arrow) || is_beyond_permit(arrow));
    let unknown = modules.names().filter(|module| !module.is_empty() && layer(module).is_none());
    let unknown = unknown.map(|module| format!("{module} has no layer"));
    nothing(&unknown.chain(wrong.map(ToString::to_string)).collect::<Vec<_>>());
}

#[test]
fn http_stays_in_the_layers_that_speak_it() {
    let modules = modules(REGISTRY);
    let wrong = modules.foreign().filter(|(module, named)| {
        ["axum", "http", "http_body", "hyper", "tower_http"].contains(&top(named))
            && !SPEAK_HTTP.iter().any(|it| {
                module
                    .strip_prefix(it)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            })
    });
    nothing(&wrong.map(|(module, named)| format!("{module} names {named}")).collect::<Vec<_>>());
}

/// Whoever else keeps or reads objects takes any store.
#[test]
fn stores_are_named_where_registries_are_put_together() {
    const MAY: [(&str, &str); 3] = [
        ("DiskStore", "data::objects"),
        ("DiskStore", "transfer::directory"),
        ("S3Store", "data::objects"),
    ];
    let arrows = modules(REGISTRY).arrows();
    let is_store = |arrow: &&Arrow| matches!(arrow.item.as_deref(), Some("DiskStore" | "S3Store"));
    let may = |arrow: &&Arrow| {
        let (item, from) = (arrow.item.as_deref().unwrap_or_default(), arrow.from_module.as_str());
        MAY.contains(&(item, from))
    };
    let (may, others): (Vec<_>, Vec<_>) = arrows.iter().filter(is_store).partition(may);
    assert_eq!(may.len(), MAY.len(), "the stores were not found");
    let others = others.into_iter().filter(|arrow| top(&arrow.from_module) != "storage");
    nothing(&others.map(ToString::to_string).collect::<Vec<_>>());
}

#[test]
fn what_a_source_names_is_understood() {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let sources = [
        source("src/lib.rs", "mod a; pub mod b; #[cfg(test)] mod faults; use a::A;"),
        source("src/a.rs", "use crate::b::{self, B as C, deep::Deep}; fn f() -> b::Other {}"),
        source("src/b/mod.rs", "mod deep; mod low; pub use low::{B, *}; struct Other;"),
        source("src/b/low.rs", "// crate::a::A\nconst T: &str = \"crate::a::A\"; pub struct B;"),
        source(
            "src/b/deep.rs",
            "fn f<'a>(c: char) { r#\"\"super::low\"#; '\"'; super::super::a::A::new(); axum::f() }
             #[cfg(test)] mod tests { use crate::faults::F; }",
        ),
        source("src/faults.rs", "use crate::b::low::B;"),
        source("src/cli/main.rs", "mod a; use crate::a::A;"),
        source("src/cli/a.rs", "use lib::a::A;"),
    ];
    let modules = Modules::read(&sources, "src/lib.rs");
    let told = |arrow: &Arrow| arrow.to_string().replace("src/", "");
    let arrows = modules.arrows();
    assert_eq!(
        arrows.iter().map(told).collect::<Vec<_>>(),
        [
            "a.rs -> b/deep.rs (Deep)",
            "a.rs -> b/low.rs (B)",
            "a.rs -> b/mod.rs (itself)",
            "a.rs -> b/mod.rs (Other)",
            "b/deep.rs -> a.rs (A)",
            "b/mod.rs -> b/low.rs (itself)",
            "b/mod.rs -> b/low.rs (B)",
            "lib.rs -> a.rs (A)",
        ]
    );
    assert_eq!(circles::of_files(&arrows), ["src/a.rs -> src/b/deep.rs -> src/a.rs"]);
    assert_eq!(circles::of_folders(&arrows), ["a -> b -> a"]);
    let foreign = modules.foreign().map(|(module, named)| format!("{module}: {named}"));
    assert_eq!(foreign.collect::<Vec<_>>(), ["b::deep: axum::f"]);
    let program = Modules::read(&sources, "src/cli/main.rs");
    assert_eq!(
        program.arrows().iter().map(told).collect::<Vec<_>>(),
        ["cli/main.rs -> cli/a.rs (A)"]
    );
}
