//! Private keys encrypted with an unlock key, as PKCS#8 with PBES2.

use pkcs8::{
    EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef, SecretDocument,
    der::asn1::OctetStringRef,
    pkcs5::{
        EncryptionScheme as Scheme,
        pbes2::{EncryptionScheme, Kdf, Parameters, Pbkdf2Params, Pbkdf2Prf, Salt},
    },
};
use rand::RngCore as _;
use zeroize::Zeroizing;

use crate::{Error, UnlockKey};

/// SwarmKit's numbers. The passphrase is 32 random bytes: stretching it would add nothing.
const ITERATIONS: u32 = 2048;
const SALT_BYTES: usize = 8;

/// More than anyone has used, and still below a second.
const MAX_ITERATIONS: u32 = 1_000_000;

pub(super) fn encrypt(der: &[u8], key: &UnlockKey) -> Result<Vec<u8>, Error> {
    let (mut salt, mut iv) = ([0; SALT_BYTES], [0; 16]);
    rand::rng().fill_bytes(&mut salt);
    rand::rng().fill_bytes(&mut iv);
    let parameters = Parameters {
        kdf: Kdf::Pbkdf2(Pbkdf2Params {
            salt: Salt::new(salt).map_err(failed)?,
            iteration_count: ITERATIONS,
            key_length: None,
            prf: Pbkdf2Prf::HmacWithSha1,
        }),
        encryption: EncryptionScheme::Aes256Cbc { iv },
    };
    let data = parameters.encrypt(key.as_bytes(), der).map_err(failed)?;
    let info = EncryptedPrivateKeyInfoRef {
        encryption_algorithm: parameters.into(),
        encrypted_data: OctetStringRef::new(&data).map_err(failed)?,
    };
    let document = SecretDocument::try_from(info).map_err(failed)?;
    Ok(document.as_bytes().to_vec())
}

pub(super) fn decrypt(der: &[u8], key: &UnlockKey) -> Result<Zeroizing<Vec<u8>>, Error> {
    let info = EncryptedPrivateKeyInfoRef::try_from(der).map_err(failed)?;
    // Other derivations may be told to take any amount of memory.
    let modest = match &info.encryption_algorithm {
        Scheme::Pbes2(parameters) => parameters
            .kdf
            .pbkdf2()
            .is_some_and(|kdf| kdf.iteration_count <= MAX_ITERATIONS),
        _ => false,
    };
    if !modest {
        return Err(failed("its encryption is not one that is used here"));
    }
    // With a wrong key the padding is wrong, or once in a while only what is before it.
    let plain = info
        .decrypt(key.as_bytes())
        .map_err(|_| Error::Locked)?
        .as_bytes()
        .to_vec();
    let plain = Zeroizing::new(plain);
    PrivateKeyInfoRef::try_from(plain.as_slice()).map_err(|_| Error::Locked)?;
    Ok(plain)
}

fn failed(reason: impl ToString) -> Error {
    Error::unusable("node key", reason)
}
