// Package files with progress, each checked against the manifest's SHA-256.

export async function fetchJson(address) {
  return (await answered(address)).json();
}

async function answered(address) {
  let response;
  try {
    response = await fetch(address);
  } catch {
    throw new Error("the local server does not answer; start it again with: phial serve DIR");
  }
  if (!response.ok) throw new Error(`${address}: the server answered ${response.status}`);
  return response;
}

// The file's bytes. `onBytes` is told how many more have come.
export async function fetchPackageFile(name, entry, onBytes) {
  const response = await answered(`/package/${name}?v=${entry.sha256}`);
  const bytes = new Uint8Array(entry.bytes);
  const reader = response.body.getReader();
  let place = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (place + value.length > bytes.length) throw new Error(`${name} is longer than the manifest says; the package is damaged`);
    bytes.set(value, place);
    place += value.length;
    onBytes(value.length);
  }
  if (place !== bytes.length) throw new Error(`${name} has ${place} bytes, the manifest says ${bytes.length}; the package is damaged`);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== entry.sha256) throw new Error(`${name} has the wrong checksum ${found.slice(0, 12)}; the package is damaged`);
  return bytes;
}

export function parseJson(bytes) {
  return JSON.parse(new TextDecoder().decode(bytes));
}
