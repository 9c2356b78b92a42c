//! Tokens that anyone guesses. The tree holds only a token's hash, and a hash tells whether the token is one of these.

use crate::name::Digest;

/// SHA-256 of what people write before they make a real token.
const GUESSABLE: &[&str] = &[
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", // nothing at all
    "7e071fd9b023ed8f18458a73613a0834f6220bd5cc50357ba3493c6040a9ea8c", // 00000000
    "8d969eef6ecad3c29a3a629280e686cf0c3f5d5a86aff3ca12020c923adc6c92", // 123456
    "ef797c8118f02dfb649607dd5d3f8c7623048c9c063d532cc95c5ed7a898a64f", // 12345678
    "c775e7b757ede630cd0aa1113bd102661ab38829ca52a6422ab782862f268646", // 1234567890
    "8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918", // admin
    "4194d1706ed1f408d5e02d672777019f4d5385c766a8c6ca8acba3167d36a7b9", // administrator
    "e2186dbdb1bb4193608605e84f33208765b5693b55edd4f730a719a100eeea6f", // change-me
    "00810cf8b94d6fcb9c5de484d3bec4187620b3e2876e59aab90d852fe0f18fb6", // changeit
    "057ba03d6c44104863dc7361fe4578965d1887360f90a0895882e58a6248fc86", // changeme
    "37a8eec1ce19687d132fe29051dca629d164e2c4958ba141d5f4133a33f0688f", // default
    "2a97516c354b68848cdbd8f54a226a0a55b21ed138e207ad6c5cbb9c00aa5aea", // demo
    "50d858e0985ecc7f60418aaf0cc5ab587f42c2570a884095a9e8ccacd0f6545c", // example
    "c3ab8ff13720e8ad9047dd39466b3c8974e592c2fa383d4a3960714caef0c4f2", // foobar
    "71b41d6dd48dc58eba8f5cf9edf30fef6597fdf285a521bb8fcbad4b3d50887d", // forge
    "f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7", // hunter2
    "1c8bfe8f801d79745c4631d09fff36c82aa37fc4cce4fc946683d7b336b63032", // letmein
    "8f0e2f76e22b43e2855189877e7dc1e1e7d98c226c95db247cd1d547928334a9", // passw0rd
    "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8", // password
    "0b14d501a594442a01c6859541bcb3e8164d183d32937b851835442f69d5c94e", // password1
    "65e84be33532fb784c48129675f9eff3a682b27168c0ea744b2cf58ee02337c5", // qwerty
    "29c9c30e0604515ced98b3d14fd88751a8f8e4b9bc69d483a67a257c14ab79fb", // registration
    "d5379496cc5edfa03edcf22a87e1f61f35977b186ceae1f05f763abcab271c13", // registration-token
    "4813494d137e1631bba301d5acab6e7bb7aa74ce1185d456565ef51d737677b2", // root
    "527aa9f431539da8e151d5434d1d5e611d973f601d8e970790882624554146b0", // runner
    "1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0", // s3cret
    "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b", // secret
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", // test
    "cf80cd8aed482d5d1527d7dc72fceff84e6326592848447d2dc0b0e87dfc9a90", // testing
    "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0", // token
    "4cf0c1012276f46af31e44d2fbb03ae7af56f03c9996eb9452b99b3e6273698e", // xxxxxxxx
];

/// Whether the token of this hash is one that anyone guesses.
pub(crate) fn is_guessable(hash: &Digest) -> bool {
    let hex = hash.hex();
    GUESSABLE.contains(&hex.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_guessable_and_a_random_token_is_not() {
        // The SHA-256 of nothing, as every implementation knows it.
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse().expect("a digest");
        assert!(is_guessable(&nothing) && !is_guessable(&Digest([7; 32])));
        assert!(GUESSABLE.iter().all(|hex| hex.parse::<Digest>().is_ok()));
    }
}
