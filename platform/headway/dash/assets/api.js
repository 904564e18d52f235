/* Answers of the server or, in an export, of the script files beside the page. */
"use strict";
(function (Headway) {
  const archive = window.HEADWAY_EXPORT || null;
  if (archive) {
    archive.data = archive.data || {};
    archive.put = (key, value) => (archive.data[key] = value);
  }

  /** Returns path and query as one text: sorted, empty parameters left out. */
  function plain(path, params) {
    const given = Object.entries(params || {}).filter(([, value]) => value !== "" && value !== null && value !== undefined);
    const query = given.map(([name, value]) => name + "=" + value).sort().join("&");
    return path + (query ? "?" + query : "");
  }

  function fnv1a64(bytes) {
    let hash = 0xcbf29ce484222325n;
    for (const byte of bytes) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
    return hash.toString(16).padStart(16, "0");
  }

  /** Returns the file-safe name under which an export keeps an answer. */
  function key(path, params) {
    const bytes = new TextEncoder().encode(plain(path, params));
    let name = "";
    for (const byte of bytes) {
      const letter = String.fromCharCode(byte);
      name += /[A-Za-z0-9._-]/.test(letter) ? letter : "~" + byte.toString(16).toUpperCase().padStart(2, "0");
    }
    return name.length > 150 ? name.slice(0, 100) + "-" + fnv1a64(bytes) : name;
  }

  /** Returns the address of an answer. */
  function address(path, params) {
    const query = new URLSearchParams();
    Object.entries(params || {}).forEach(([name, value]) => {
      if (value !== "" && value !== null && value !== undefined) query.set(name, value);
    });
    const text = query.toString();
    return path.split("/").map(encodeURIComponent).join("/") + (text ? "?" + text : "");
  }

  const asked = new Map();

  function fromArchive(path, params) {
    const name = key(path, params);
    if (name in archive.data) return Promise.resolve(archive.data[name]);
    if (!asked.has(name)) asked.set(name, loadScript("data/" + name + ".js"));
    return asked.get(name).then(() => {
      if (name in archive.data) return archive.data[name];
      throw new Error("not in this export: " + plain(path, params));
    });
  }

  /** Loads a script of this page; resolves when it has run. */
  function loadScript(source) {
    return new Promise((done) => {
      const script = document.createElement("script");
      script.src = source;
      script.onload = script.onerror = done;
      document.head.append(script);
    });
  }

  async function readAnswer(answer) {
    const body = await answer.json().catch(() => ({}));
    if (answer.ok) return body;
    const error = new Error(body.error || "the server answered " + answer.status);
    error.status = answer.status;
    throw error;
  }

  function headers() {
    const token = Headway.store.token();
    return token ? { "X-Headway-Token": token } : {};
  }

  async function send(path, params, options) {
    let answer;
    try {
      answer = await fetch(address(path, params), { headers: headers(), ...options });
    } catch (problem) {
      if (problem.name === "AbortError") throw problem;
      throw Object.assign(new Error("the server does not answer; is `headway dash` still running?"), { unanswered: true });
    }
    return readAnswer(answer);
  }

  /**
   * Returns the answer to GET `path`.
   * @param {string} path "api/run/ID", undecorated.
   * @param {Object} [params] the query.
   * @param {AbortSignal} [signal] gives up waiting.
   * @throws {Error} with one line; `status` is the server's, if it answered.
   */
  function get(path, params, signal) {
    return archive ? fromArchive(path, params) : send(path, params, { signal });
  }

  /** Asks the server to act: POST with the token. */
  function post(path) {
    return send(path, null, { method: "POST" });
  }

  /** Returns where a file of a run's media folder is. */
  function fileAddress(run, path) {
    if (!archive) return address("api/run/" + run + "/file", { path });
    return ["data/files", run, path].join("/").split("/").map(encodeURIComponent).join("/");
  }

  /** Returns the text of a file of a run's media folder. */
  async function fileText(run, path) {
    if (archive) return (await fromArchive("api/run/" + run + "/file", { path })).text;
    const answer = await fetch(fileAddress(run, path), { headers: headers() });
    if (!answer.ok) throw new Error(path + ": the server answered " + answer.status);
    return answer.text();
  }

  Headway.api = { exported: archive !== null, key, address, get, post, fileAddress, fileText, loadScript };
})((window.Headway = window.Headway || {}));
