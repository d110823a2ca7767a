// A WebSocket that comes back: the session's name is kept for as long as the tab, and said again after a loss.

const KEY = "lssvwm-session";
const FIRST_WAIT = 300, LONGEST_WAIT = 5000, TAKEN_OVER = 4001, REFUSED = 4403;

export class Wire {
  constructor(onMessage, onLink) {
    this.onMessage = onMessage;
    this.onLink = onLink;
    this.wait = FIRST_WAIT;
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/walk${location.search}`);
    this.socket.onopen = () => {
      this.wait = FIRST_WAIT;
      this.onLink("open");
      this.send({ type: "hello", session: sessionStorage.getItem(KEY) });
    };
    this.socket.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.type === "scene") sessionStorage.setItem(KEY, message.session);
      this.onMessage(message);
    };
    this.socket.onclose = (event) => {
      if (event.code === TAKEN_OVER) return this.onLink("taken");
      if (event.code === REFUSED) return this.onLink("refused");
      this.onLink("lost");
      setTimeout(() => this.open(), this.wait);
      this.wait = Math.min(LONGEST_WAIT, this.wait * 1.7);
    };
  }

  send(message) {
    if (this.socket.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }
}
