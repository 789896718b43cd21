//! Lines of JSON over a byte stream, for clients of such protocols.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_serde::Framed;
use tokio_serde::formats::Json;
use tokio_util::codec::{Decoder, Encoder, FramedRead, FramedWrite};

/// Maximum size of a line, in bytes: a job whose coinbase pays thousands fits.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// A stream of JSON values.
pub type Reader<R> = Framed<FramedRead<R, LineCodec>, Value, Value, Json<Value, Value>>;

/// A sink of JSON values.
pub type Writer<W> = Framed<FramedWrite<W, LineCodec>, Value, Value, Json<Value, Value>>;

/// Reads values from `reader`.
pub fn reader<R: AsyncRead>(reader: R) -> Reader<R> {
    Framed::new(FramedRead::new(reader, LineCodec::default()), Json::default())
}

/// Writes values to `writer`, one per line.
pub fn writer<W: AsyncWrite>(writer: W) -> Writer<W> {
    Framed::new(FramedWrite::new(writer, LineCodec::default()), Json::default())
}

/// Splits at line feeds when reading, appends them when writing.
#[derive(Debug, Default)]
pub struct LineCodec {
    /// Length of the buffer's start that is known to hold no line feed.
    scanned: usize,
}

impl Decoder for LineCodec {
    type Item = BytesMut;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<BytesMut>> {
        let Some(offset) = buffer[self.scanned..].iter().position(|byte| *byte == b'\n') else {
            self.scanned = buffer.len();
            if self.scanned > LINE_BYTES_MAX {
                return Err(io::Error::other(format!("line longer than {LINE_BYTES_MAX} bytes")));
            }
            return Ok(None);
        };
        let mut line = buffer.split_to(self.scanned + offset + 1);
        self.scanned = 0;
        line.truncate(line.len() - 1);
        Ok(Some(line))
    }
}

impl Encoder<Bytes> for LineCodec {
    type Error = io::Error;

    fn encode(&mut self, line: Bytes, buffer: &mut BytesMut) -> io::Result<()> {
        buffer.reserve(line.len() + 1);
        buffer.put(line);
        buffer.put_u8(b'\n');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{SinkExt, StreamExt};
    use serde_json::json;

    #[tokio::test]
    async fn values_come_out_as_they_went_in() {
        let (ours, theirs) = tokio::io::duplex(16);
        let values = [json!({"id": 1, "text": "a\nb"}), json!([]), json!(null)];
        let sent = values.clone();
        tokio::spawn(async move {
            let mut writer = writer(ours);
            for value in sent {
                writer.send(value).await.unwrap();
            }
        });
        let received: Vec<Value> = reader(theirs).map(Result::unwrap).collect().await;
        assert_eq!(received, values);
    }

    #[tokio::test]
    async fn a_line_without_end_is_an_error_and_not_a_growing_buffer() {
        let endless = tokio::io::repeat(b'x');
        assert!(reader(endless).next().await.unwrap().is_err());
    }
}
