// Browsers start no workers for pages that are opened from a folder: there a hidden frame does the search's work.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      document.body.append(frame);
      const inside = frame.contentWindow, script = inside.document.createElement("script");
      // Messages go out as events of this object, and come in as events of the frame, in order, once it listens.
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", {data}));
      this.ready = new Promise((done, failed) => {
        script.onload = done;
        script.onerror = failed;
      });
      this.inside = inside;
      script.src = address;
      inside.document.head.append(script);
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", {data})));
    }
  };
}
