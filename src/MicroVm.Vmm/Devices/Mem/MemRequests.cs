using System.Runtime.InteropServices;
using MicroVm.Memory;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Mem;

/// <summary>Carries out the requests of a virtio-mem device, one at a time.</summary>
internal sealed class MemRequests(GuestMemory memory, PluggedBlocks blocks, MemCounters counters)
{
    /// <summary>Most bytes of one request to unplug: giving memory back takes the host a while. Linux asks for 128 MiB at most.</summary>
    public const ulong MaxUnplugBytes = 1ul << 30;

    /// <summary>Executes a request; bytes written of its answer.</summary>
    /// <returns>0 when the request has no room for an answer, or is cut off: the caller breaks the queue.</returns>
    public uint Execute(DescriptorChain chain)
    {
        MemRequest request = default;
        MemResponse response = default;
        if (chain.CopyFromReadable(0, MemoryMarshal.AsBytes(new Span<MemRequest>(ref request))) < MemRequest.Size || chain.WritableLength < MemResponse.Size)
        {
            return 0;
        }

        response.Type = request.Type switch
        {
            MemRequestType.Plug => blocks.Plug(request.Address, request.Blocks),
            MemRequestType.Unplug => Unplug(request.Address, request.Blocks),
            MemRequestType.UnplugAll => UnplugAll(),
            MemRequestType.State => blocks.Ask(request.Address, request.Blocks, out response.State),
            _ => MemResponseType.Error,
        };
        counters.Count(request.Type, response.Type);
        return (uint)chain.CopyToWritable(0, MemoryMarshal.AsBytes(new ReadOnlySpan<MemResponse>(in response)));
    }

    private MemResponseType Unplug(ulong at, ushort count)
    {
        if (count * PluggedBlocks.BlockSize > MaxUnplugBytes)
        {
            return MemResponseType.Busy;
        }

        MemResponseType answer = blocks.Unplug(at, count);
        if (answer == MemResponseType.Ack)
        {
            Release(at, count * PluggedBlocks.BlockSize);
        }

        return answer;
    }

    private MemResponseType UnplugAll()
    {
        Release(blocks.Describe().Address, blocks.UnplugAll());
        return MemResponseType.Ack;
    }

    private void Release(ulong at, ulong length)
    {
        if (length > 0 && !memory.TryRelease(at, length, out _))
        {
            counters.Errors++;
        }
    }
}
