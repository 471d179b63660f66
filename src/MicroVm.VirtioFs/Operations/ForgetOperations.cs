using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;

namespace MicroVm.VirtioFs.Operations;

/// <summary>FORGET, BATCH_FORGET and INTERRUPT, which have no answer.</summary>
internal sealed class ForgetOperations(FsContext fs)
{
    public int Forget(FuseRequest r)
    {
        if (r.TryRead(0, out fuse_forget_in forget))
        {
            fs.Inodes.Forget(r.NodeId, forget.nlookup);
        }

        return FuseRequest.NoReply;
    }

    public int ForgetBatch(FuseRequest r)
    {
        if (r.TryRead(0, out fuse_batch_forget_in batch))
        {
            ForgetEach(r, batch.count);
        }

        return FuseRequest.NoReply;
    }

    public int Interrupt(FuseRequest r)
    {
        if (r.TryRead(0, out fuse_interrupt_in interrupt))
        {
            fs.Waiting.Interrupt(interrupt.unique);
        }

        return FuseRequest.NoReply;
    }

    /// <summary>The count is the guest's word; the request's length is what there is. Read in blocks: each looks for its place anew.</summary>
    // Safe: the records are in the scratch buffer, as many as its bytes make up.
    private unsafe void ForgetEach(FuseRequest r, uint count)
    {
        ulong offset = (ulong)sizeof(fuse_batch_forget_in);
        while (count > 0 && !r.IsStopping)
        {
            const int Block = FuseRequest.ScratchLength / 16;
            int length = r.Read(offset, r.Scratch, (int)Math.Min(count, Block) * sizeof(fuse_forget_one));
            fuse_forget_one* records = (fuse_forget_one*)r.Scratch;
            int complete = length / sizeof(fuse_forget_one);
            if (complete == 0)
            {
                return;
            }

            for (int i = 0; i < complete; i++)
            {
                fs.Inodes.Forget(records[i].nodeid, records[i].nlookup);
            }

            count -= (uint)complete;
            offset += (ulong)length;
        }
    }
}
