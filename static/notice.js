// <dormouse-notice token="…">: what the membership site has to ask this member, inside the service's own page.
// What the element holds, a link, stays where this script, the network or the token fails. See docs/integration.md.
(() => {
  "use strict";
  const site = new URL("..", document.currentScript.src);
  const css = `
    :host { display: block }
    :host([hidden]) { display: none }
    section { background: var(--dormouse-background, #fff8e1); color: var(--dormouse-color, #212121);
      border: 1px solid var(--dormouse-border, #8a6d1b); border-radius: var(--dormouse-radius, 5px); padding: 1rem }
    h2 { font: inherit; font-weight: 700; font-size: 1.2em; margin: 0 0 .5rem }
    p { margin: 0 }
    p + p { margin-top: 1rem }
    a { display: inline-block; padding: .6rem 1.2rem; border-radius: var(--dormouse-radius, 5px); font-weight: 700; text-decoration: none;
      background: var(--dormouse-action, #0d47a1); color: var(--dormouse-action-color, #fff) }
    a:hover { text-decoration: underline }
    a:focus-visible { outline: 3px solid currentColor; outline-offset: 3px }`;

  customElements.define("dormouse-notice", class extends HTMLElement {
    static observedAttributes = ["token"];
    #asked = 0;

    attributeChangedCallback() { if (this.isConnected) this.connectedCallback(); }

    async connectedCallback() {
      const token = this.getAttribute("token"), asked = ++this.#asked;
      if (!token) return;
      const language = this.closest("[lang]")?.lang ?? "";
      try {
        const answer = await fetch(new URL(`api/notice?locale=${encodeURIComponent(language)}`, site), {
          headers: { Authorization: `Bearer ${token}` }, credentials: "omit", cache: "no-store",
          referrerPolicy: "no-referrer", signal: AbortSignal.timeout?.(10000),
        });
        const notice = answer.status === 200 ? await answer.json() : null;
        if (asked !== this.#asked) return;
        this.hidden = answer.status === 204;
        if (notice) this.#show(notice);
      } catch {
        // The link stays.
      }
    }

    #show(notice) {
      const root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
      const make = (tag, part, text = "") =>
        Object.assign(document.createElement(tag), { part, textContent: text, lang: notice.language });
      const region = make("section", "notice"), title = make("h2", "title", notice.title);
      const action = make("a", "action", notice.action), last = make("p", "answer");
      title.id = "title";
      region.setAttribute("role", "region");
      region.setAttribute("aria-labelledby", "title");
      action.href = this.getAttribute("href") || notice.link;
      last.append(action);
      region.append(title, make("p", "text", notice.text), last);
      root.replaceChildren(region);
      try {
        const sheet = new CSSStyleSheet();
        sheet.replaceSync(css);
        root.adoptedStyleSheets = [sheet];
      } catch {
        // An old browser shows it in the page's plain style.
      }
    }
  });
})();
