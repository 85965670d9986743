//! What is read of files, and how what is wrong in them is told.

use weft_api::{Detail, ErrorInner};

use super::*;

#[test]
fn a_folder_is_read_in_order_and_only_its_manifests() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b.yaml", "a.yml", "c.json", "notes.txt"] {
        std::fs::write(folder.path().join(name), name).unwrap();
    }
    std::fs::create_dir(folder.path().join("more")).unwrap();
    std::fs::write(folder.path().join("more/d.yaml"), "d").unwrap();
    let names = |recursive| {
        let found = in_folder(folder.path(), recursive).unwrap();
        found.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(false), ["a.yml", "b.yaml", "c.json"]);
    assert_eq!(names(true), ["a.yml", "b.yaml", "c.json", "d.yaml"]);
}

#[test]
fn carets_stand_under_the_word() {
    fn check(line: &str, column: usize, shown: &str, carets: &str) {
        let text = format!("first\n{line}\nlast\n");
        let expect = format!("\n    2 | {shown}\n      | {carets}");
        assert_eq!(excerpt(&text, 2, column), Some(expect), "{line}");
    }
    check("  prots:", 3, "  prots:", "  ^^^^^");
    check("a: [x, y]", 8, "a: [x, y]", "       ^");
    check("a: \"b c\" # d", 4, "a: \"b c\" # d", "   ^^^^^");
    check("ports: http://x", 8, "ports: http://x", "       ^^^^^^^^");
    check("\tü: x", 5, " ü: x", "    ^");
    check("", 1, "", "^");
    let long = format!("{}wrong: 1", "x: ".repeat(100));
    let start = format!("{}wrong: 1", "x: ".repeat(17)).split_off(1);
    check(&long, 301, &start, &format!("{}^^^^^", " ".repeat(50)));
    assert_eq!(excerpt("a", 9, 1), None);
    assert_eq!(excerpt("a", 0, 0), None);
}

#[test]
fn an_object_in_two_files_is_told() {
    let source = |name: &str| {
        let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n".to_owned();
        Source { name: name.to_owned(), text }
    };
    let Err(Unusable::Wrong { errors, .. }) = Manifests::parse(vec![source("a.yaml"), source("b.yaml")]) else {
        panic!("taken twice")
    };
    assert_eq!(errors[0].to_string(), "b.yaml:3:18: metadata.name: Namespace a is given twice; first in a.yaml:1");
}

#[test]
fn what_the_control_plane_finds_is_told_where_it_is_written() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec:\n  clusterIP: 10.0.0.1\n";
    let manifests = Manifests::of_text("shop.yaml", text).unwrap_or_else(|_| panic!("refused"));
    let detail = |document, key: &str, message: &str| Detail {
        document,
        key: key.to_owned(),
        message: message.to_owned(),
        ..Detail::default()
    };
    let refusal = Refusal {
        status: 422,
        told: ErrorInner {
            code: "refused".to_owned(),
            message: "it is not sound".to_owned(),
            details: vec![
                detail(Some(1), "spec.clusterIP", "is taken"),
                detail(Some(7), "x", "y"),
                detail(None, "z", "w"),
            ],
        },
    };
    assert_eq!(
        manifests.describe_refusal(&refusal),
        "it is not sound\n  shop.yaml:9:14: spec.clusterIP: is taken\n    9 |   clusterIP: 10.0.0.1\n      |              ^^^^^^^^\n  x: y\n  z: w"
    );
}

#[test]
fn values_of_secrets_are_sent_and_shown_on_no_terminal() {
    let text = |data| format!("apiVersion: weft.dev/v1alpha1\nkind: Secret\nmetadata: {{name: s}}\nspec:\n  {data}\n");
    let sent = Manifests::of_text("s.yaml", &text("stringData: {k: foobar}")).unwrap_or_else(|_| panic!("refused"));
    assert_eq!(sent.to_json().unwrap()[0]["spec"]["data"]["k"], "Zm9vYmFy");
    for wrong in ["data: {k: hunter2}", "stringDta: {k: hunter2}", "stringData: {k: \"hunter2"] {
        let Err(unusable) = Manifests::of_text("s.yaml", &text(wrong)) else { panic!("{wrong}: taken") };
        let Failure::Told { text, .. } = Failure::from(unusable) else { panic!("{wrong}: not told") };
        assert!(text.contains("s.yaml:") && !text.contains("hunter2"), "{text}");
    }
    // So it is where the kind is misspelt, or written in another way.
    for kind in ["secret", "Secert", "SECRET # of the shop", "\n  Secret", "&kind Secret", "\"Secret\"", "SecretList"] {
        let text = text("data: {k: hunter2}").replace("kind: Secret", &format!("kind: {kind}"));
        let Err(unusable) = Manifests::of_text("s.yaml", &text) else { panic!("{text}: taken") };
        let Failure::Told { text: told, .. } = Failure::from(unusable) else { panic!("{text}: not told") };
        assert!(told.contains("s.yaml:") && !told.contains("hunter2"), "{told}");
    }
}

#[test]
fn lines_of_texts_without_secrets_are_shown() {
    for kind in ["Service", "service", "FilterPolicy", "Deployment", "ServiceList"] {
        assert!(!holds_secrets(&format!("kind: {kind}\nspec: {{secret: {{values: []}}}}\n")), "{kind}");
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let args = |path: PathBuf| FileArgs { files: vec![path], recursive: false };
    let error = texts(&args(folder.path().to_owned())).unwrap_err().to_string();
    assert!(error.contains("no *.yaml"), "{error}");
    let error = texts(&args(folder.path().join("absent.yaml"))).unwrap_err().to_string();
    assert!(error.contains("absent.yaml"), "{error}");
}
