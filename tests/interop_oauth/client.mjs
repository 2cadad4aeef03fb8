// An independent caller: gets a token as the metadata say, and asks for the sets with it. JSON on stdin, JSON on stdout.
import { readFileSync } from "node:fs";
import * as oauth from "oauth4webapi";

const { issuer, agency, algorithm, jwk, kid } = JSON.parse(readFileSync(0, "utf8"));
const insecure = { [oauth.allowInsecureRequests]: true }; // plain HTTP, on loopback only
const { d, ...publicJwk } = jwk;

function imported(key, usage) {
  const kind = algorithm === "ES256" ? { name: "ECDSA", namedCurve: "P-256" } : { name: "Ed25519" };
  return crypto.subtle.importKey("jwk", key, kind, true, [usage]);
}

const privateKey = await imported(jwk, "sign");
const publicKey = await imported(publicJwk, "verify");
const url = new URL(issuer);
const found = await oauth.discoveryRequest(url, { algorithm: "oauth2", ...insecure });
const server = await oauth.processDiscoveryResponse(url, found);

const client = { client_id: agency };
const proof = oauth.DPoP(client, { privateKey, publicKey });
const authentication = oauth.PrivateKeyJwt({ key: privateKey, kid });
let challenges = 0;

async function askedTwice(request) {
  try {
    return await request();
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error;
    challenges += 1;
    return request();
  }
}

const token = await askedTwice(async () => {
  const parameters = new URLSearchParams({ scope: "native" });
  const options = { DPoP: proof, ...insecure };
  const answer = await oauth.clientCredentialsGrantRequest(server, client, authentication, parameters, options);
  return oauth.processClientCredentialsResponse(server, client, answer);
});

async function get(path, handle) {
  const place = new URL(path, issuer);
  const options = { DPoP: handle, ...insecure };
  const answer = await oauth.protectedResourceRequest(token.access_token, "GET", place, undefined, undefined, options);
  return { status: answer.status, body: await answer.json() };
}

const sets = await askedTwice(() => get("/v1/sets", proof));
const atTokenEndpoint = challenges;
// A handle that has not heard of any nonce yet is asked for one by the resource itself.
const fresh = oauth.DPoP(client, { privateKey, publicKey });
const again = await askedTwice(() => get("/v1/sets", fresh));
// The token is for one surface.
let refused = {};
try {
  await get("/v1/log/checkpoint", proof);
} catch (error) {
  refused = { status: error.status, parameters: error.cause[0].parameters };
}
const { token_type, scope, expires_in } = token;
console.log(JSON.stringify({ token_type, scope, expires_in, sets, atTokenEndpoint, again, challenges, refused }));
