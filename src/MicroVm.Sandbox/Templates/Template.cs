using MicroVm.Linux;

namespace MicroVm.Sandbox.Templates;

/// <summary>The open files of a template that a VM starts from. Owns them.</summary>
/// <param name="name">Its name.</param>
/// <param name="folder">Its folder.</param>
/// <param name="state">The state file.</param>
/// <param name="memory">The memory file.</param>
/// <param name="pages">The set of pages that every start writes; null where it is not known.</param>
internal sealed class Template(string name, string folder, SafeFd state, SafeFd memory, SafeFd? pages) : IDisposable
{
    /// <summary>Its name.</summary>
    internal string Name => name;

    /// <summary>Path of the state file, for messages.</summary>
    internal string StatePath => Path.Combine(folder, TemplateStore.StateFile);

    /// <summary>The state file.</summary>
    internal SafeFd State => state;

    /// <summary>The memory file.</summary>
    internal SafeFd Memory => memory;

    /// <summary>The set of pages that every start writes; null where it is not known.</summary>
    internal SafeFd? Pages => pages;

    public void Dispose()
    {
        pages?.Dispose();
        state.Dispose();
        memory.Dispose();
    }
}
