package org.pytorch.executorch;

/** Name of a method and the backends that took parts of it, each once. */
public class MethodMetadata {
  private final String name;
  private final String[] backends;

  MethodMetadata(String name, String[] backends) {
    this.name = name;
    this.backends = backends;
  }

  public String getName() {
    return name;
  }

  public String[] getBackends() {
    return backends.clone();
  }
}
