//! Nothing waits behind a filter that takes long to compile: a Deny policy that is told later is in force sooner, everywhere.

mod long {
    use std::time::{Duration, Instant};

    use http::Method;
    use weft_tests::client::empty;
    use weft_tests::{App, Client, Mesh, Sidecar, Workload, eventually};

    use super::super::hostile::tampered::tampered;
    use super::super::in_process::wasm;

    const SERVICES: [&str; 3] = ["books", "music", "films"];

    /// Denies these paths to everybody, in the whole namespace.
    fn closed(path: &str) -> String {
        format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {{name: closed, namespace: default}}, spec: \
             {{action: Deny, rules: [{{to: [{{paths: [{path}]}}]}}]}}}}\n"
        )
    }

    const LONG: &str = "{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, metadata: {name: bomb, namespace: default}, spec: \
                        {filter: {name: bomb}, onFailure: Deny, limits: {callTimeoutMs: 100}, config: {}}}\n";

    /// Status of a request, 0 where it broke off: one that is under way when a policy denies it is ended.
    async fn status(caller: &Sidecar, service: &str, path: &str) -> u16 {
        let mut client = Client::through(caller.proxy(), service).await;
        client.call(Method::GET, path, &[], empty()).await.map_or(0, |answer| answer.status.as_u16())
    }

    /// Filters of a proxy that are in this state.
    async fn filters(sidecar: &Sidecar, state: &str) -> f64 {
        sidecar.metrics().await.sum("weft_filters", &[("state", state)])
    }

    /// Publishes a sound filter of which there is much to compile.
    fn publish(mesh: &Mesh) {
        let (file, key) = (mesh.folder().join("bomb.wasm"), mesh.folder().join("publisher.key"));
        std::fs::write(&file, tampered(&wasm("starter"), |module| module.bomb(4_000, 200))).unwrap();
        let (file, key) = (file.display().to_string(), key.display().to_string());
        for arguments in [
            &["filter", "keygen", "--out", &key][..],
            &["filter", "publish", &file, "--name", "bomb", "--version", "1.0.0", "--key", &key],
        ] {
            let printed = mesh.weft(arguments);
            assert_eq!(printed.code, 0, "{arguments:?}: {}{}", printed.out, printed.err);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "compiles for half a minute on the whole machine: cargo xtask test --long"]
    async fn a_deny_policy_is_in_force_within_a_second_while_another_filter_is_compiled() {
        let mesh = Mesh::start().await;
        let (mut apps, mut servers) = (Vec::new(), Vec::new());
        for service in SERVICES {
            let workload = Workload::server(service, 8080, "http");
            apps.push(App::start(service, workload.ip, 8080).await);
            servers.push(mesh.sidecar(workload).await);
        }
        let caller = mesh.sidecar(Workload::client("guest")).await;
        mesh.apply(&closed("/never"));
        for service in SERVICES {
            eventually("the service answers", || async {
                (status(&caller, service, "/who").await == 200).then_some(())
            })
            .await;
        }
        publish(&mesh);
        let applied = mesh.weft_reading(LONG, &["apply", "-f", "-"]);
        assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
        for server in &servers {
            eventually("the filter is compiled", || async {
                (filters(server, "compiling").await == 1.0).then_some(())
            })
            .await;
        }

        let told = Instant::now();
        let applied = mesh.weft_reading(&closed("/who"), &["apply", "-f", "-"]);
        assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
        for service in SERVICES {
            while status(&caller, service, "/who").await != 403 {
                assert!(told.elapsed() < weft_tests::wait::LIMIT, "{service} is open");
            }
        }
        let took = told.elapsed();
        eprintln!("in force at every proxy after {took:?}");
        for server in &servers {
            let compiling = filters(server, "compiling").await;
            assert_eq!(compiling, 1.0, "{}: it was in force before the other filter", server.workload.name);
        }
        assert!(took <= Duration::from_secs(1), "{took:?}");

        for (server, service) in servers.iter().zip(SERVICES) {
            eventually("the filter is ready", || async { (filters(server, "loaded").await >= 2.0).then_some(()) })
                .await;
            assert_eq!(filters(server, "compiling").await, 0.0);
            assert_eq!(status(&caller, service, "/who").await, 403);
            assert_eq!(status(&caller, service, "/slow/1").await, 200);
        }
        drop(apps);
    }
}
