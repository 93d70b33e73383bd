// Sends one file to the upload route and shows how far it is. Streamlit calls the default function
// again on every rerun: what belongs to a running upload is kept on the element, not in that call.

const SIGNATURE = [0x89, 0x48, 0x44, 0x46, 0x0d, 0x0a, 0x1a, 0x0a];
const REFRESH_MS = 250;

export default function (component) {
  const zone = component.parentElement.querySelector(".zone");
  zone.uploader ??= new Uploader(zone);
  zone.uploader.data = component.data;
  zone.uploader.report = (result) => component.setStateValue("result", result);
  zone.querySelector(".limit").textContent =
    `Up to ${bytes(component.data.maxBytes)}. It is stored on the server's disk; stay on this page until it is done.`;
  return () => zone.uploader.leave();
}

class Uploader {
  constructor(zone) {
    this.part = (name) => zone.querySelector(`.${name}`);
    this.input = zone.querySelector("input");
    this.warn = (event) => event.preventDefault();
    this.part("pick").onclick = () => this.input.click();
    this.part("cancel").onclick = () => this.cancel();
    this.input.onchange = () => {
      this.begin([...this.input.files]);
      this.input.value = ""; // so that the same file can be chosen again
    };
    zone.ondragover = (event) => {
      event.preventDefault();
      zone.classList.toggle("over", !this.request);
    };
    zone.ondragleave = () => zone.classList.remove("over");
    zone.ondrop = (event) => {
      event.preventDefault();
      zone.classList.remove("over");
      this.begin([...event.dataTransfer.files]);
    };
  }

  async begin(files) {
    if (this.request || files.length === 0) return;
    this.say("", "");
    const file = files[0];
    const several = [`${files.length} files were dropped.`, "Drop one file at a time."];
    const problem = files.length > 1 ? several : await this.check(file);
    if (this.request) return; // a second file was chosen while the first was being looked at
    if (problem) this.fail(...problem);
    else this.send(file);
  }

  // The server checks all this too; here the answer comes before gigabytes were sent.
  async check(file) {
    if (file.size > this.data.maxBytes)
      return [
        `The file has ${bytes(file.size)}; the limit is ${bytes(this.data.maxBytes)}.`,
        "Open it by path instead, or set SCDIVA_MAX_UPLOAD_GB on the server.",
      ];
    try {
      const start = new Uint8Array(await file.slice(0, SIGNATURE.length).arrayBuffer());
      if (SIGNATURE.every((byte, place) => start[place] === byte)) return null;
    } catch {
      return [`${file.name} cannot be read.`, "Choose a file, not a folder, and check its permissions."];
    }
    return [
      `${file.name} is not an .h5ad file: it does not begin with the HDF5 signature.`,
      "Save the data with AnnData.write_h5ad. Files that are compressed (.gz, .zip) must be unpacked.",
    ];
  }

  send(file) {
    const request = new XMLHttpRequest();
    this.request = request;
    this.began = performance.now();
    this.shown = 0;
    request.open("PUT", `${base()}/api/upload/${encodeURIComponent(file.name)}`);
    request.setRequestHeader(this.data.header, this.data.token);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.responseType = "json";
    request.upload.onprogress = (event) => this.show(event.loaded, file.size);
    request.onload = () => this.answer(request.status, request.response);
    request.onerror = () =>
      this.fail("The connection to the server was lost.", "Check that the app is still running, then upload again.");
    this.part("name").textContent = file.name;
    this.show(0, file.size);
    this.busy(true);
    this.part("cancel").focus();
    request.send(file);
  }

  show(sent, size) {
    const now = performance.now();
    if (sent < size && now - this.shown < REFRESH_MS) return;
    this.shown = now;
    const speed = sent / Math.max(now - this.began, 1); // bytes a millisecond
    this.part("busy").querySelector("progress").value = sent / size;
    const share = `${Math.floor((100 * sent) / size)} % of ${bytes(size)}`;
    const pace = sent ? ` · ${(speed / 1000).toFixed(1)} MB/s · ${duration((size - sent) / speed / 1000)} left` : "";
    this.part("numbers").textContent = sent < size ? share + pace : `${share} · writing to disk`;
  }

  answer(status, reply) {
    if (status === 201 && reply) {
      this.stop();
      this.say(`${reply.name} was uploaded (${bytes(reply.size)}).`, "");
      this.report(reply);
    } else
      this.fail(
        reply?.error ?? `The server did not accept the upload (status ${status}).`,
        reply?.hint ?? "Reload the page, then upload again.",
      );
  }

  fail(error, hint) {
    this.stop();
    this.say("", `${error} ${hint}`);
    this.report({ error, hint });
  }

  cancel() {
    this.request?.abort();
    this.stop();
    this.say("The upload was cancelled; nothing was kept.", "");
  }

  stop() {
    const uploading = Boolean(this.request);
    this.request = null;
    this.busy(false);
    if (uploading) this.part("pick").focus();
  }

  leave() {
    this.request?.abort();
    this.request = null;
    window.removeEventListener("beforeunload", this.warn);
  }

  busy(is) {
    this.part("busy").hidden = !is;
    this.part("idle").hidden = is;
    if (is) window.addEventListener("beforeunload", this.warn);
    else window.removeEventListener("beforeunload", this.warn);
  }

  say(done, error) {
    this.part("done").textContent = done;
    this.part("error").textContent = error;
  }
}

// Where the app is mounted: behind a proxy or with a base path its own script says so.
function base() {
  const script = document.querySelector('script[src*="/static/js/"]');
  return script ? script.src.slice(0, script.src.indexOf("/static/js/")) : "";
}

function bytes(size) {
  if (size >= 1e9) return `${Number((size / 1e9).toFixed(2))} GB`;
  return size >= 1e6 ? `${Number((size / 1e6).toFixed(1))} MB` : `${Math.ceil(size / 1e3)} kB`;
}

function duration(seconds) {
  if (seconds >= 3600) return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
  return seconds >= 90 ? `${Math.round(seconds / 60)} min` : `${Math.max(Math.round(seconds), 1)} s`;
}
