pub(crate) fn config() -> crate::config::Config {
    let text = "[gateway]\nname = \"g\"\ndata_dir = \"/nowhere\"\n";
    toml::from_str(text).expect("a small configuration")
}
