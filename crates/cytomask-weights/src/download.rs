//! One file over HTTP(S), resumable.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

use crate::{Error, ErrorKind, Result};

/// Downloads `url` to `path`, which appears only when all of it is there; until then the bytes are in `path` with `.part` at the
/// end, and a later call goes on from them. A file that is there already is left as it is. Whether it is the right one is for
/// the caller to check. `inactivity` is how long the server may stay silent.
///
/// # Errors
/// `Network`; `Io`.
pub fn download_file(
    url: &str,
    path: impl AsRef<Path>,
    inactivity: Duration,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<()> {
    let path = path.as_ref();
    if path.is_file() {
        return Ok(());
    }
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    download(url, part, inactivity, progress)?;
    std::fs::rename(part, path).map_err(|source| Error::io("cannot rename to", path, source))
}

/// Downloads `url` to `part`, going on after the bytes that are already there.
///
/// On an error the bytes that arrived stay, so that a later call goes on from there. Whether the result is the right
/// file is for the caller to check.
pub(crate) fn download(
    url: &str,
    part: &Path,
    inactivity: Duration,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<()> {
    let io = |what| move |source| Error::io(what, part, source);
    let mut file = File::options().create(true).write(true).truncate(false).open(part).map_err(io("cannot create"))?;
    let mut done = file.seek(SeekFrom::End(0)).map_err(io("cannot write"))?;
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(inactivity))
        .timeout_per_read(Some(inactivity))
        .timeout_per_write(Some(inactivity))
        .user_agent(concat!("cytomask/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let mut response = request(&agent, url, done)?;
    if response.status() == StatusCode::RANGE_NOT_SATISFIABLE && done > 0 {
        // The part is as long as the file or longer: from another version, or complete but never checked.
        done = 0;
        response = request(&agent, url, 0)?;
    }
    match response.status() {
        StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(done) => {}
        StatusCode::PARTIAL_CONTENT => {
            let message = format!("{url}: the server sent another range than asked for (from byte {done})");
            return Err(Error::new(ErrorKind::Network, message));
        }
        // The server knows no ranges: it sends everything again.
        StatusCode::OK => done = 0,
        status => {
            let message = format!("{url}: the server answered {status}; expected the file");
            return Err(Error::new(ErrorKind::Network, message));
        }
    }
    file.set_len(done).map_err(io("cannot write"))?;
    file.seek(SeekFrom::Start(done)).map_err(io("cannot write"))?;
    let total = content_length(&response).and_then(|length| length.checked_add(done));
    progress(done, total);
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                file.write_all(&buffer[..count]).map_err(io("cannot write"))?;
                done += count as u64;
                progress(done, total);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => {
                let message = format!("{url}: the download broke off at {}; run it again to go on", at(done, total));
                return Err(Error::new(ErrorKind::Network, message).with_source(source));
            }
        }
    }
    if total.is_some_and(|total| done < total) {
        let message = format!("{url}: the download broke off at {}; run it again to go on", at(done, total));
        return Err(Error::new(ErrorKind::Network, message));
    }
    file.sync_all().map_err(io("cannot write"))
}

fn request(agent: &Agent, url: &str, from: u64) -> Result<Response<Body>> {
    // Asked for uncompressed: ranges and lengths then count the file's own bytes.
    let mut request = agent.get(url).header(header::ACCEPT_ENCODING, "identity");
    if from > 0 {
        request = request.header(header::RANGE, format!("bytes={from}-"));
    }
    request.call().map_err(|source| Error::new(ErrorKind::Network, format!("{url}: no answer")).with_source(source))
}

/// The first byte that `Content-Range: bytes 5-9/10` speaks of.
fn range_start(response: &Response<Body>) -> Option<u64> {
    let value = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

fn content_length(response: &Response<Body>) -> Option<u64> {
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn at(done: u64, total: Option<u64>) -> String {
    match total {
        Some(total) => format!("{done} of {total} bytes"),
        None => format!("{done} bytes"),
    }
}
