//! `xdp-umem` and the core of `xdp-core` need no standard library: a program without one links them.

#[path = "common/fixture.rs"]
mod fixture;

use fixture::Fixture;

const MANIFEST: &str = "crate-type = [\"staticlib\"]\n[features]\nplanted = []\n[dependencies]\n\
    xdp-umem = { path = \"ROOT/xdp-umem\" }\n\
    xdp-core = { path = \"ROOT/xdp-core\", default-features = false, features = [\"sim\", \"ledger\"] }\n";

#[test]
fn a_program_without_the_standard_library_links_the_core() {
    let fixture = Fixture { name: "no_std", source: "no_std/lib.rs", manifest: MANIFEST, flags: "" };
    fixture.build().unwrap();
}

#[test]
fn the_same_program_with_the_standard_library_in_it_does_not_build() {
    let manifest = "crate-type = [\"staticlib\"]\n[features]\ndefault = [\"planted\"]\nplanted = []\n[dependencies]\n\
        xdp-core = { path = \"ROOT/xdp-core\", default-features = false, features = [\"sim\"] }\n";
    let fixture = Fixture { name: "with_std", source: "no_std/lib.rs", manifest, flags: "" };
    let said = fixture.build().unwrap_err();
    assert!(said.contains("E0152") && said.contains("panic_impl"), "{said}");
}
