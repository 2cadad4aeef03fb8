// An independent age: `node age.mjs seal RECIPIENT | open IDENTITY | keygen`, stdin to stdout.
import { readFileSync, writeSync } from "node:fs";
import { Decrypter, Encrypter, generateHybridIdentity, identityToRecipient } from "age-encryption";

const [verb, key] = process.argv.slice(2);

function put(bytes) {
  for (let done = 0; done < bytes.length; ) done += writeSync(1, bytes, done);
}

if (verb === "keygen") {
  const identity = await generateHybridIdentity();
  put(Buffer.from(JSON.stringify({ identity, recipient: await identityToRecipient(identity) })));
} else if (verb === "seal") {
  const encrypter = new Encrypter();
  encrypter.addRecipient(key);
  put(await encrypter.encrypt(readFileSync(0)));
} else if (verb === "open") {
  const decrypter = new Decrypter();
  decrypter.addIdentity(key);
  put(await decrypter.decrypt(readFileSync(0)));
} else {
  process.exit(2);
}
