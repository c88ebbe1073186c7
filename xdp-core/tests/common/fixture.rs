//! Builds small crates that depend on this workspace's, offline, in a target directory of their own: to look at what
//! the compiler made of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A crate to build.
pub(crate) struct Fixture {
    /// Its name, and that of its directory.
    pub(crate) name: &'static str,
    /// Where its source is, under `tests`.
    pub(crate) source: &'static str,
    /// What its `[lib]` and `[dependencies]` sections say. `ROOT` stands for the workspace's directory.
    pub(crate) manifest: &'static str,
    /// In `RUSTFLAGS`.
    pub(crate) flags: &'static str,
}

impl Fixture {
    /// Builds it. Returns each crate's results, as `deps/NAME-HASH` without an extension, or what the compiler said.
    pub(crate) fn build(&self) -> Result<Vec<PathBuf>, String> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = own.parent().unwrap();
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(self.name);
        fs::create_dir_all(&home).unwrap();
        let manifest = format!(
            "[package]\nname = \"{}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n\
             [profile.release]\ncodegen-units = 1\nlto = \"off\"\npanic = \"{}\"\n\
             [lib]\npath = {:?}\n{}",
            self.name,
            if self.manifest.contains("staticlib") { "abort" } else { "unwind" },
            own.join("tests").join(self.source),
            self.manifest.replace("ROOT", root.to_str().unwrap()),
        );
        fs::write(home.join("Cargo.toml"), manifest).unwrap();
        fs::copy(root.join("Cargo.lock"), home.join("Cargo.lock")).unwrap(); // the versions that are here
        let target = home.join("target");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--release", "--offline", "--quiet", "--message-format=json"])
            .current_dir(&home)
            .env("CARGO_TARGET_DIR", &target)
            .env("RUSTFLAGS", self.flags)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("CARGO_BUILD_TARGET")
            .output()
            .unwrap();
        let [told, said] =
            [&built.stdout, &built.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        if !built.status.success() {
            return Err(told + &said);
        }
        let files =
            told.split('"').map(Path::new).filter(|file| file.extension().is_some_and(|it| it == "rmeta"));
        let results = files.filter_map(|file| {
            let stem = file.file_stem()?.to_str()?.strip_prefix("lib")?;
            Some(file.with_file_name(stem))
        });
        Ok(results.collect())
    }
}
