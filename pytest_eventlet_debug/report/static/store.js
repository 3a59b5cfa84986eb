"use strict";

// Loads the scripts that lie beside the page. Each makes one call with its data in it: a page
// that was opened from a file may not read files in any other way.
window.eventletReport = (() => {
  const waiting = new Map(); // script element -> what to do with its data
  const loaded = new Map(); // address -> promise of the data

  function receive(packed) {
    const resolve = waiting.get(document.currentScript);
    waiting.delete(document.currentScript);
    resolve(unpack(packed));
  }

  async function unpack(packed) {
    const text = atob(packed);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }

  function addScript(address, onload, onerror) {
    const script = document.createElement("script");
    script.src = address;
    script.addEventListener("load", onload);
    script.addEventListener("error", onerror);
    document.head.append(script);
    return script;
  }

  // Return a promise of the data in a script. Loaded once.
  function load(address) {
    if (!loaded.has(address)) {
      loaded.set(address, new Promise((resolve, reject) => {
        const fail = () => reject(new Error(`${address} is missing or cannot be read`));
        // A script that was there but made no call has no data.
        const check = () => waiting.has(script) && fail();
        const script = addScript(address, check, fail);
        waiting.set(script, resolve);
      }));
    }
    return loaded.get(address);
  }

  // Return a promise that a library is there. Loaded once.
  function library(address) {
    if (!loaded.has(address)) {
      loaded.set(address, new Promise((resolve, reject) => {
        addScript(address, resolve, () => reject(new Error(`${address} is missing`)));
      }));
    }
    return loaded.get(address);
  }

  return { receive, load, library };
})();
