using MicroVm.Shim.Containers;

namespace MicroVm.Shim.Tests.Support;

/// <summary>A process that ends when a test says so.</summary>
internal sealed class FakeProcess : ITaskProcess
{
    private readonly TaskCompletionSource<uint> _end = new();

    internal (uint Width, uint Height) Size { get; set; }

    internal bool InputClosed { get; private set; }

    internal bool Closed { get; private set; }

    internal void End(uint status) => _end.TrySetResult(status);

    public TaskEnd Wait() => new(_end.Task.GetAwaiter().GetResult(), OutOfMemory: false, Lost: false);

    public void Signal(int signal) => End(128 + (uint)signal);

    public void Resize(uint width, uint height) => Size = (width, height);

    public void CloseInput() => InputClosed = true;

    public void Settle()
    {
    }

    public bool Drain(TimeSpan patience) => true;

    public void DrainAll()
    {
    }

    public void Close() => Closed = true;
}
