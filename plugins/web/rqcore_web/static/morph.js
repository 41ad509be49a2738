// Makes an element like another one and touches only what differs, so that whatever the reader is at
// stays: the focus, what he types, boxes he ticked, details he opened, how far he scrolled.
//
// Children that have an id are recognised by it, others by their place. [data-still] is left alone.

// What belongs to the reader, or to a script of ours, and is not the server's to say.
const OWN = new Set(["open", "data-at"]);

export function morph(old, fresh) {
  const focused = document.activeElement;
  morphNode(old, fresh);
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

function morphNode(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  if (old.hasAttribute("data-still")) return;
  morphAttributes(old, fresh);
  if (old.localName === "textarea") {
    if (!isBeingEdited(old)) old.value = fresh.value;
    return;
  }
  morphChildren(old, fresh);
}

function morphAttributes(old, fresh) {
  for (const { name, value } of [...fresh.attributes]) {
    if (isOwn(old, name) || old.getAttribute(name) === value) continue;
    old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!isOwn(old, name) && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
}

function isOwn(element, name) {
  if (OWN.has(name)) return true;
  if (name === "hidden") return element.hasAttribute("data-copy") || element.hasAttribute("data-script");
  if (element.localName === "input") return name === "checked" || (name === "value" && isBeingEdited(element));
  return false;
}

function isBeingEdited(field) {
  return field === document.activeElement || field.value !== field.defaultValue;
}

function morphChildren(old, fresh) {
  const known = new Map();
  for (const child of old.childNodes) if (child.id) known.set(child.id, child);
  let at = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const match = wanted.id ? known.get(wanted.id) : isAlike(at, wanted) ? at : null;
    if (match && match.nodeName === wanted.nodeName) {
      if (match === at) at = at.nextSibling;
      else old.insertBefore(match, at);
      morphNode(match, wanted);
    } else {
      old.insertBefore(document.importNode(wanted, true), at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function isAlike(node, wanted) {
  return node && !node.id && !wanted.id && node.nodeName === wanted.nodeName;
}
