//! MongoDB's wire protocol as far as drivers of today speak it: `OP_MSG`, and `OP_QUERY` for a
//! first `hello`.

use std::io;

use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::command::Command;

const OP_REPLY: i32 = 1;
const OP_QUERY: i32 = 2004;
const OP_MSG: i32 = 2013;
/// The largest message of a server, 48 MB and a header.
const LARGEST: usize = 48_000_000 + 16_384;
/// Flags of `OP_MSG`: a checksum follows; no answer is wanted.
const CHECKSUM: u32 = 1;
const MORE_TO_COME: u32 = 2;

/// A message, and how it is to be answered.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: i32,
    pub(super) command: Command,
    is_query: bool,
    pub(super) wants_answer: bool,
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a message with {what}"))
}

fn integer(bytes: &[u8], at: usize) -> io::Result<i32> {
    let four = bytes
        .get(at..at + 4)
        .and_then(|four| four.try_into().ok())
        .ok_or_else(|| malformed("too few bytes"))?;
    Ok(i32::from_le_bytes(four))
}

fn document(bytes: &[u8], at: usize) -> io::Result<RawDocumentBuf> {
    let length =
        usize::try_from(integer(bytes, at)?).map_err(|_| malformed("a negative length"))?;
    let document = bytes.get(at..at + length).ok_or_else(|| malformed("a cut document"))?;
    RawDocumentBuf::from_bytes(document.to_vec()).map_err(io::Error::other)
}

/// Reads a message; `None` at the end of the stream.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Message>> {
    let mut header = [0; 16];
    match stream.read_exact(&mut header).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let length =
        usize::try_from(integer(&header, 0)?).map_err(|_| malformed("a negative length"))?;
    if !(16..=LARGEST).contains(&length) {
        return Err(malformed("an impossible length"));
    }
    let mut bytes = vec![0; length - 16];
    stream.read_exact(&mut bytes).await?;
    let id = integer(&header, 4)?;
    match integer(&header, 12)? {
        OP_MSG => {
            let (command, flags) = sections(&bytes)?;
            Ok(Some(Message {
                id,
                command,
                is_query: false,
                wants_answer: flags & MORE_TO_COME == 0,
            }))
        }
        OP_QUERY => {
            let name_end = bytes
                .iter()
                .skip(4)
                .position(|&byte| byte == 0)
                .ok_or_else(|| malformed("no name"))?
                + 4;
            let db =
                String::from_utf8_lossy(&bytes[4..name_end]).trim_end_matches(".$cmd").to_owned();
            let mut body = document(&bytes, name_end + 1 + 8)?;
            body.append(mongodb::bson::cstr!("$db"), db.as_str());
            Ok(Some(Message {
                id,
                command: Command::new(body),
                is_query: true,
                wants_answer: true,
            }))
        }
        _ => Err(malformed("an opcode that is not supported")),
    }
}

fn sections(bytes: &[u8]) -> io::Result<(Command, u32)> {
    let flags = integer(bytes, 0)?.cast_unsigned();
    let end = if flags & CHECKSUM == 0 { bytes.len() } else { bytes.len() - 4 };
    let bytes = &bytes[..end];
    let (mut body, mut sequence, mut at) = (None, None, 4);
    while at < bytes.len() {
        match bytes[at] {
            0 => {
                let section = document(bytes, at + 1)?;
                at += 1 + section.as_bytes().len();
                body = Some(section);
            }
            1 => {
                let length = usize::try_from(integer(bytes, at + 1)?)
                    .map_err(|_| malformed("a negative length"))?;
                let section =
                    bytes.get(at + 1..at + 1 + length).ok_or_else(|| malformed("a cut section"))?;
                let name_end = section
                    .iter()
                    .skip(4)
                    .position(|&byte| byte == 0)
                    .ok_or_else(|| malformed("no name"))?
                    + 4;
                let (mut documents, mut within) = (Vec::new(), name_end + 1);
                while within < section.len() {
                    let next = document(section, within)?;
                    within += next.as_bytes().len();
                    documents.push(next);
                }
                sequence =
                    Some((String::from_utf8_lossy(&section[4..name_end]).into_owned(), documents));
                at += 1 + length;
            }
            _ => return Err(malformed("a section of an unknown kind")),
        }
    }
    let mut command = Command::new(body.ok_or_else(|| malformed("no body"))?);
    command.sequence = sequence;
    Ok((command, flags))
}

async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    answers: i32,
    opcode: i32,
    parts: &[&[u8]],
) -> io::Result<()> {
    let length = 16 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(length);
    for number in [i32::try_from(length).map_err(io::Error::other)?, 0, answers, opcode] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for part in parts {
        bytes.extend_from_slice(part);
    }
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// Answers a message.
pub(super) async fn answer(
    stream: &mut (impl AsyncWrite + Unpin),
    to: &Message,
    reply: &RawDocument,
) -> io::Result<()> {
    if to.is_query {
        // Flags, cursor (8), first document, count.
        let head: Vec<u8> = [8, 0, 0, 0, 1].into_iter().flat_map(i32::to_le_bytes).collect();
        send(stream, to.id, OP_REPLY, &[&head, reply.as_bytes()]).await
    } else {
        send(stream, to.id, OP_MSG, &[&[0; 4], &[0], reply.as_bytes()]).await
    }
}

/// Sends a command to a server and reads its answer.
pub(super) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    body: &RawDocument,
    sequence: Option<&(String, Vec<RawDocumentBuf>)>,
) -> io::Result<RawDocumentBuf> {
    let mut section = Vec::new();
    if let Some((name, documents)) = sequence {
        let length = 4
            + name.len()
            + 1
            + documents.iter().map(|document| document.as_bytes().len()).sum::<usize>();
        section.push(1);
        section.extend_from_slice(&i32::try_from(length).map_err(io::Error::other)?.to_le_bytes());
        section.extend_from_slice(name.as_bytes());
        section.push(0);
        for document in documents {
            section.extend_from_slice(document.as_bytes());
        }
    }
    send(stream, 0, OP_MSG, &[&[0; 4], &[0], body.as_bytes(), &section]).await?;
    match read(stream).await? {
        Some(message) => Ok(message.command.body),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The documents of an array.
pub(super) fn array_of<'a>(documents: impl IntoIterator<Item = &'a RawDocument>) -> RawArrayBuf {
    let mut array = RawArrayBuf::new();
    for document in documents {
        array.push(document);
    }
    array
}

/// An answer that says only that it went well.
pub(super) fn fine() -> RawDocumentBuf {
    rawdoc! { "ok": 1.0 }
}
