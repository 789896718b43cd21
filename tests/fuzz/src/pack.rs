//! Reads values from untrusted bytes in an order given by the first bytes: never panics, and all values read are
//! written back as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sharechain::pack::{Reader, UnpackError, Writer};

fuzz_target!(|input: &[u8]| {
    let Some((script, bytes)) = input.split_first_chunk::<8>() else { return };
    let mut reader = Reader::new(bytes);
    let mut writer = Writer::default();
    for step in script {
        if one(*step, &mut reader, &mut writer).is_err() {
            // After a refused value only one thing is guaranteed: reading can continue.
            assert!(reader.at() <= bytes.len());
            let _ = reader.finish("rest");
            return;
        }
    }
    assert_eq!(writer.as_bytes(), &bytes[..reader.at()]);
});

fn one(step: u8, reader: &mut Reader, writer: &mut Writer) -> Result<(), UnpackError> {
    match step % 11 {
        0 => writer.u8(reader.u8("u8")?),
        1 => writer.u16(reader.u16("u16")?),
        2 => writer.u16_big_endian(reader.u16_big_endian("u16")?),
        3 => writer.u32(reader.u32("u32")?),
        4 => writer.u64(reader.u64("u64")?),
        5 => writer.u128(reader.u128("u128")?),
        6 => writer.varint(reader.varint("varint")?),
        7 => writer.varstr(reader.varstr("varstr")?),
        8 => writer.hashes(&reader.hashes("hashes")?),
        9 => writer.hash_or_none(reader.hash_or_none("hash")?.as_ref()),
        _ => {
            let count = reader.count("count", 3)?;
            assert!(count * 3 <= reader.left());
            writer.count(count);
        }
    }
    Ok(())
}
