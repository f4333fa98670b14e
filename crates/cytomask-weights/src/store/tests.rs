//! Downloads from a real server on this machine, with every way in which it can misbehave.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::*;
use crate::Hash;

/// What the server does with a request.
#[derive(Clone, Copy)]
enum Serve {
    /// All, or the range asked for.
    Ranges,
    /// Always all.
    WithoutRanges,
    /// A range, but from the wrong byte.
    WrongRange,
    /// A status and no file.
    Status(&'static str),
    /// The right length, then half of the bytes, then the end.
    Truncated,
    /// Half of the bytes, then silence.
    Stalls,
    /// Accepts and says nothing.
    Silent,
    /// A few bytes at a time, with a pause.
    Trickle,
    /// No length; the end of the connection is the end of the file.
    WithoutLength,
    /// Sends the client elsewhere first.
    Redirects,
}

struct Server {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

/// A server that answers each connection with the next behaviour; the last one repeats.
fn server(content: Vec<u8>, behaviours: &[Serve]) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (log, behaviours, content) = (requests.clone(), behaviours.to_vec(), Arc::new(content));
    std::thread::spawn(move || {
        for (count, stream) in listener.incoming().enumerate() {
            let behaviour = behaviours[count.min(behaviours.len() - 1)];
            let (log, content) = (log.clone(), content.clone());
            // A client that gives up in the middle is part of the test.
            std::thread::spawn(move || drop(answer(stream.unwrap(), behaviour, &content, &log)));
        }
    });
    Server { address, requests }
}

fn answer(mut stream: TcpStream, behaviour: Serve, content: &[u8], log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut request = String::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    while !request.ends_with("\r\n\r\n") && reader.read_line(&mut request)? > 0 {}
    log.lock().unwrap().push(request.clone());
    let lower = request.to_lowercase();
    let from: usize = lower
        .split("range: bytes=")
        .nth(1)
        .and_then(|rest| rest.split('-').next())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0);
    let length = content.len();
    let all = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let half = length / 2;
    match behaviour {
        Serve::Ranges | Serve::WrongRange if from > 0 => {
            if from >= length {
                let head = "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                return stream.write_all(head.as_bytes());
            }
            let said = if matches!(behaviour, Serve::WrongRange) { from - 1 } else { from };
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {said}-{}/{length}\r\n\
                 Connection: close\r\n\r\n",
                length - from,
                length - 1
            );
            stream.write_all(head.as_bytes())?;
            stream.write_all(&content[from..])
        }
        Serve::Ranges | Serve::WrongRange | Serve::WithoutRanges => {
            stream.write_all(all.as_bytes())?;
            stream.write_all(content)
        }
        Serve::Status(status) => {
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\nConnection: close\r\n\r\nsorry");
            stream.write_all(head.as_bytes())
        }
        Serve::Truncated => {
            stream.write_all(all.as_bytes())?;
            stream.write_all(&content[..half])
        }
        Serve::Stalls => {
            stream.write_all(all.as_bytes())?;
            stream.write_all(&content[..half])?;
            stream.flush()?;
            std::thread::sleep(Duration::from_secs(30));
            Ok(())
        }
        Serve::Silent => {
            std::thread::sleep(Duration::from_secs(30));
            Ok(())
        }
        Serve::Trickle => {
            stream.write_all(all.as_bytes())?;
            for chunk in content.chunks(length.div_ceil(8)) {
                stream.write_all(chunk)?;
                stream.flush()?;
                std::thread::sleep(Duration::from_millis(300));
            }
            Ok(())
        }
        Serve::WithoutLength => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            stream.write_all(content)
        }
        Serve::Redirects => {
            let head = "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(head.as_bytes())
        }
    }
}

fn content() -> Vec<u8> {
    (0..700_001u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// A registry file with the content's true hash, or another.
fn entry(content: &[u8], right: bool) -> ModelFile {
    let mut sha256 = crate::sha256_bytes(content);
    if !right {
        sha256.replace_range(0..4, "beef");
    }
    let hashes = Box::leak(Box::new([Hash::Sha256(sha256.leak())]));
    ModelFile {
        role: Role::Model,
        name: "weights.pt",
        url: Some("https://example.invalid/weights.pt"),
        size: None,
        hashes,
    }
}

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
    server: Server,
    file: ModelFile,
}

fn bench(behaviours: &[Serve], right_hash: bool) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let server = server(content(), behaviours);
    let options = StoreOptions {
        dir: Some(dir.path().join("cache")),
        mirror: Some(format!("{}/mirror/", server.address)),
        inactivity: Duration::from_millis(900),
    };
    Bench { store: Store::open(options).unwrap(), file: entry(&content(), right_hash), dir, server }
}

impl Bench {
    fn pull(&self) -> Result<PathBuf> {
        self.store.pull_file(&self.file, &mut |_, _| {})
    }

    fn has(&self, name: &str) -> bool {
        self.store.dir().join(name).exists()
    }

    fn requests(&self) -> Vec<String> {
        self.server.requests.lock().unwrap().clone()
    }

    /// The final name does not exist; the part does, or not.
    fn assert_failed(&self, error: &Error, kind: ErrorKind, part: bool) {
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!self.has("weights.pt"));
        assert_eq!(self.has("weights.pt.part"), part, "{error}");
    }

    fn assert_complete(&self, path: &Path) {
        assert_eq!(std::fs::read(path).unwrap(), content());
        assert_eq!(path, self.store.dir().join("weights.pt"));
        assert!(!self.has("weights.pt.part"));
    }
}

#[test]
fn full_download_and_progress() {
    let bench = bench(&[Serve::Ranges], true);
    let mut seen = Vec::new();
    let path = bench.store.pull_file(&bench.file, &mut |done, total| seen.push((done, total))).unwrap();
    bench.assert_complete(&path);
    let length = content().len() as u64;
    assert_eq!(seen.first(), Some(&(0, Some(length))));
    assert_eq!(seen.last(), Some(&(length, Some(length))));
    assert!(seen.is_sorted());
    assert!(bench.requests()[0].starts_with("GET /mirror/weights.pt "), "the mirror's layout is flat");
    bench.pull().unwrap();
    assert_eq!(bench.requests().len(), 1, "what is here is not fetched again");
}

#[test]
fn resumes_with_a_range() {
    let bench = bench(&[Serve::Truncated, Serve::Ranges], true);
    let error = bench.pull().unwrap_err();
    bench.assert_failed(&error, ErrorKind::Network, true);
    let half = content().len() / 2;
    assert!(error.to_string().contains(&format!("{half} of {}", content().len())), "{error}");
    let mut first = None;
    let path = bench.store.pull_file(&bench.file, &mut |done, _| first = first.or(Some(done))).unwrap();
    bench.assert_complete(&path);
    assert_eq!(first, Some(half as u64));
    assert!(bench.requests()[1].to_lowercase().contains(&format!("range: bytes={half}-")));
}

#[test]
fn starts_again_where_the_server_knows_no_ranges() {
    let bench = bench(&[Serve::Truncated, Serve::WithoutRanges], true);
    bench.pull().unwrap_err();
    bench.assert_complete(&bench.pull().unwrap());
}

#[test]
fn starts_again_where_the_part_is_too_long() {
    let bench = bench(&[Serve::Ranges], true);
    std::fs::create_dir_all(bench.store.dir()).unwrap();
    std::fs::write(bench.store.dir().join("weights.pt.part"), vec![1; content().len() + 5]).unwrap();
    bench.assert_complete(&bench.pull().unwrap());
}

#[test]
fn another_range_than_asked_for_is_refused() {
    let bench = bench(&[Serve::Truncated, Serve::WrongRange, Serve::Ranges], true);
    bench.pull().unwrap_err();
    bench.assert_failed(&bench.pull().unwrap_err(), ErrorKind::Network, true);
    bench.assert_complete(&bench.pull().unwrap());
}

#[test]
fn wrong_hash_names_both_and_leaves_nothing() {
    let bench = bench(&[Serve::Ranges], false);
    let error = bench.pull().unwrap_err();
    bench.assert_failed(&error, ErrorKind::Hash, false);
    let right = crate::sha256_bytes(&content());
    assert!(error.to_string().contains(&right) && error.to_string().contains("sha256:beef"), "{error}");
}

#[test]
fn wrong_part_is_not_resumed_for_ever() {
    let bench = bench(&[Serve::Ranges], true);
    std::fs::create_dir_all(bench.store.dir()).unwrap();
    std::fs::write(bench.store.dir().join("weights.pt.part"), b"something else").unwrap();
    bench.assert_failed(&bench.pull().unwrap_err(), ErrorKind::Hash, false);
    bench.assert_complete(&bench.pull().unwrap());
}

#[test]
fn status_404_and_500() {
    for (status, text) in [("404 Not Found", "404"), ("500 Internal Server Error", "500")] {
        let bench = bench(&[Serve::Status(status)], true);
        let error = bench.pull().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Network);
        assert!(error.to_string().contains(text) && error.to_string().contains("weights.pt"), "{error}");
        assert!(!bench.has("weights.pt"));
    }
}

#[test]
fn refused_connection() {
    let mut bench = bench(&[Serve::Ranges], true);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    bench.store.mirror = Some(format!("http://127.0.0.1:{port}"));
    let error = bench.pull().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network, "{error}");
    assert!(!bench.has("weights.pt"));
}

#[test]
fn slow_is_not_silent() {
    let bench = bench(&[Serve::Trickle], true);
    let start = Instant::now();
    bench.assert_complete(&bench.pull().unwrap());
    assert!(start.elapsed() > bench.store.inactivity, "the whole took longer than the limit on silence");
}

#[test]
fn silence_ends_in_an_error_and_can_be_resumed() {
    let bench = bench(&[Serve::Silent, Serve::Stalls, Serve::Ranges], true);
    let start = Instant::now();
    assert_eq!(bench.pull().unwrap_err().kind(), ErrorKind::Network);
    bench.assert_failed(&bench.pull().unwrap_err(), ErrorKind::Network, true);
    assert!(start.elapsed() < Duration::from_secs(20));
    bench.assert_complete(&bench.pull().unwrap());
    assert!(bench.requests()[2].to_lowercase().contains("range: bytes="));
}

#[test]
fn without_length_and_with_redirect() {
    let one = bench(&[Serve::WithoutLength], true);
    one.assert_complete(&one.pull().unwrap());
    let two = bench(&[Serve::Redirects, Serve::Ranges], true);
    two.assert_complete(&two.pull().unwrap());
}

#[test]
fn two_at_once_do_not_disturb_each_other() {
    let bench = bench(&[Serve::Trickle], true);
    let calls = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let path = bench.store.pull_file(&bench.file, &mut |_, _| {}).unwrap();
                assert_eq!(std::fs::read(path).unwrap(), content());
                calls.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    assert_eq!(bench.requests().len(), 1, "the second waited for the first");
}

#[test]
fn unknown_foreign_embedded_and_missing_models() {
    let bench = bench(&[Serve::Status("404 Not Found")], true);
    let store = &bench.store;
    let kind = |name: &str| store.pull(name, &mut |_, _| {}).unwrap_err().kind();
    assert_eq!(kind("vit_b_lm_decoder"), ErrorKind::NotFound);
    assert_eq!(kind("sam2.1_hiera_tiny"), ErrorKind::Unsupported);
    assert_eq!(kind("vit_b_lm"), ErrorKind::Network);
    assert!(bench.requests()[0].starts_with("GET /mirror/vit_b_lm.pt "));
    assert!(store.pull("cytomask-t", &mut |_, _| {}).unwrap().is_empty());
    let error = store.files("vit_b").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("cytomask models pull vit_b"), "{error}");
    assert_eq!(store.verify("vit_b").unwrap_err().kind(), ErrorKind::NotFound);
    store.verify("cytomask-t").unwrap();
    assert!(store.list().iter().all(|listed| listed.complete == listed.model.is_embedded()));
}

#[test]
fn import_verify_export() {
    let bench = bench(&[Serve::Ranges], true);
    let (store, dir) = (&bench.store, bench.dir.path());
    let tensor = |name: &str| (name.to_owned(), vec![1], vec![0.0f32]);
    let model = dir.join("mine.pt");
    crate::write_torch(&model, &[tensor("image_encoder.x")], None).unwrap();
    let decoder = dir.join("mine_decoder.pt");
    crate::write_torch(&decoder, &["base.a", "deconv1.b", "out_conv.c"].map(tensor), None).unwrap();
    let error = store.import("vit_b_lm", &model, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Hash);
    let found = crate::sha256_file(&model).unwrap();
    assert!(error.to_string().contains("fe9252a29f3f4ea53c15a06de471e186") && error.to_string().contains(&found));
    assert_eq!(store.import("vit_b_lm", &model, true).unwrap(), store.dir().join("vit_b_lm.pt"));
    assert_eq!(store.files("vit_b_lm").unwrap_err().kind(), ErrorKind::NotFound, "its decoder is missing");
    store.import("vit_b_lm", &decoder, true).unwrap();
    let files = store.files("vit_b_lm").unwrap();
    assert_eq!(files.decoder, Some(store.dir().join("vit_b_lm_decoder.pt")));
    assert_eq!(std::fs::read(&files.model).unwrap(), std::fs::read(&model).unwrap());
    assert_eq!(store.verify("vit_b_lm").unwrap_err().kind(), ErrorKind::Hash);
    assert_eq!(store.import("vit_b", &decoder, true).unwrap_err().kind(), ErrorKind::Value);
    let listed = store.list().into_iter().find(|listed| listed.model.name == "vit_b_lm").unwrap();
    assert!(listed.complete && listed.cached.len() == 2 && listed.bytes > 0);
    let exported = store.export("vit_b_lm", dir.join("out")).unwrap();
    assert_eq!(exported.len(), 2);
    assert!(exported.iter().all(|path| path.is_file()));
    // Onto itself: nothing is lost.
    store.import("vit_b_lm", &files.model, true).unwrap();
    assert_eq!(std::fs::read(&files.model).unwrap(), std::fs::read(&model).unwrap());
}
