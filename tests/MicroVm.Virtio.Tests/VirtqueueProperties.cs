using FsCheck;
using FsCheck.Fluent;
using MicroVm.Tests.Shared;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Virtio.Tests.Mmio;

namespace MicroVm.Virtio.Tests;

/// <summary>Whatever a driver writes into its rings: no exception, no byte outside RAM, the queue works or is broken.</summary>
public sealed unsafe class VirtqueueProperties
{
    private const ulong Ram = RandomRings.Ram;
    private const int Size = RandomRings.Size;

    [Fact]
    public void Random_rings_never_reach_outside_of_memory()
    {
        using FakeDevice device = new() { QueueSizes = [16] };
        using GuestDriver guest = new(device, memory: Ram);
        using DescriptorChain chain = new(64);
        DriverQueue driver = guest.Queues[0];
        ulong inner = guest.Allocate(Size * 16, 16);
        int popped = 0, broken = 0;
        Prop.ForAll(RandomRings.All.ToArbitrary(), rings =>
        {
            driver.Clear();
            Virtqueue queue = driver.MakeDeviceSide();
            rings.Table.CopyTo(driver.Table);
            for (int i = 0; i < Size; i++)
            {
                Assert.True(guest.Memory.TryWrite(inner + ((ulong)i * 16), rings.Inner[i]));
                driver.AvailableRing[2 + i] = rings.Available[i];

                // Some tables refer to the inner one rather than to anything.
                if ((rings.Table[i].Flags & Descriptor.FlagIndirect) != 0 && rings.Table[i].Length % 32 == 0)
                {
                    driver.Table[i] = new Descriptor(inner, Size * 16, Descriptor.FlagIndirect, 0);
                }
            }

            driver.AvailableRing[1] = rings.Jump;
            int taken = 0;
            while (queue.TryPop(chain))
            {
                taken++;
                AssertInside(guest, chain);
                queue.PushUsed(chain.Head, 0);
            }

            popped += taken;
            broken += queue.IsBroken ? 1 : 0;
            _ = queue.Publish();
            _ = queue.EnableNotifications();
            Assert.True(queue.IsBroken || taken == rings.Jump);
            Assert.Equal(queue.IsBroken, queue.BrokenReason is not null);
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(3000));

        // The generator makes both kinds, or it proves nothing.
        Assert.InRange(popped, 500, int.MaxValue);
        Assert.InRange(broken, 500, int.MaxValue);
    }

    [Fact]
    public void Well_formed_chains_arrive_byte_for_byte_whatever_their_shape()
    {
        using FakeDevice device = new() { QueueSizes = [16] };
        using GuestDriver guest = new(device, memory: Ram);
        using DescriptorChain chain = new(64);
        DriverQueue driver = guest.Queues[0];
        Virtqueue queue = driver.MakeDeviceSide();
        ulong buffer = guest.Allocate(64 * 1024);
        Gen<(int[] Out, int[] In, int Direct, int Offset)> shapes =
            from readable in Gen.Choose(0, 600).ArrayOf().Resize(8)
            from writable in Gen.Choose(0, 600).ArrayOf().Resize(8)
            from direct in Gen.Choose(0, 10)
            from offset in Gen.Choose(0, 2000)
            select (readable, writable, direct, offset);
        Prop.ForAll(shapes.ToArbitrary(), shape =>
        {
            if (shape.Out.Length + shape.In.Length == 0)
            {
                return;
            }

            List<Segment> segments = [];
            ulong at = buffer;
            byte[] sent = new byte[shape.Out.Sum()];
            Random.Shared.NextBytes(sent);
            int done = 0;
            foreach (int length in shape.Out)
            {
                sent.AsSpan(done, length).CopyTo(guest.Span(at, length));
                segments.Add(new Segment(at, (uint)length, false));
                at += (ulong)length + 3;
                done += length;
            }

            ulong writable = at;
            foreach (int length in shape.In)
            {
                segments.Add(new Segment(at, (uint)length, true));
                at += (ulong)length + 3;
            }

            if (shape.Direct < segments.Count && shape.Direct < 10)
            {
                driver.AddIndirect([.. segments], shape.Direct);
            }
            else if (segments.Count <= Size)
            {
                driver.Add([.. segments]);
            }
            else
            {
                return;
            }

            driver.Notify();
            Assert.True(queue.TryPop(chain));
            Assert.Equal((ulong)sent.Length, chain.ReadableLength);
            byte[] got = new byte[sent.Length + 10];
            int offset = Math.Min(shape.Offset, sent.Length);
            int n = chain.CopyFromReadable((ulong)offset, got);
            Assert.True(sent.AsSpan(offset).SequenceEqual(got.AsSpan(0, n)));

            byte[] answer = new byte[shape.In.Sum()];
            Random.Shared.NextBytes(answer);
            int first = Math.Min(shape.Offset, answer.Length);
            Assert.Equal(first, chain.CopyToWritable(0, answer.AsSpan(0, first)));
            Assert.Equal(answer.Length - first, chain.CopyToWritable((ulong)first, answer.AsSpan(first)));
            queue.PushUsed(chain.Head, (uint)answer.Length);
            _ = queue.Publish();
            Assert.True(driver.TryTakeUsed(out _, out uint written));
            Assert.Equal((uint)answer.Length, written);
            done = 0;
            foreach (int length in shape.In)
            {
                Assert.True(answer.AsSpan(done, length).SequenceEqual(guest.Span(writable, length)));
                writable += (ulong)length + 3;
                done += length;
            }
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(500));
        Assert.Equal(Size, driver.FreeDescriptors);
    }

    private static void AssertInside(GuestDriver guest, DescriptorChain chain)
    {
        byte* start = guest.Memory.TryGetPointer(0, Ram);
        for (int i = 0; i < chain.ReadableCount + chain.WritableCount; i++)
        {
            byte* p = (byte*)chain.Readable[i].iov_base;
            Assert.True(p >= start && p + chain.Readable[i].iov_len <= start + Ram);
        }

        // Every byte can be touched.
        Span<byte> probe = stackalloc byte[64];
        _ = chain.CopyFromReadable(chain.ReadableLength / 2, probe);
        _ = chain.CopyFromReadable(ulong.MaxValue, probe);
        _ = chain.CopyToWritable(chain.WritableLength + 1, probe);
    }
}
